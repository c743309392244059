/* Whether bytes are UTF-8. */
#ifndef IQ_CODEC_UTF8_H
#define IQ_CODEC_UTF8_H

#include "base/config.h"

/* UTF-8 as RFC 3629 has it: no surrogates, nothing overlong, nothing above U+10FFFF. U+0000 passes. */
IQ_FN bool iq_utf8_is_valid(const void *bytes, size_t size);

#endif
