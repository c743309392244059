/* Pages that begin alike, as the first table of persist/format.h says. */
#ifndef IQ_PERSIST_PAGE_H
#define IQ_PERSIST_PAGE_H

#include "persist/format.h"

/* Fills the head of a page that is complete behind it; its CRC. */
IQ_FN uint32_t iq_page_seal(uint8_t *page, size_t size, const char *magic, const uint8_t *uuid);
/* Whether the magic is this one and the CRC that of the page. */
IQ_FN bool iq_page_is_sound(const uint8_t *page, size_t size, const char *magic);

#endif
