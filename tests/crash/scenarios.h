/* Scripts of world.h, the lives that crash, fault and mutant tests go through. */
#ifndef SCENARIOS_H
#define SCENARIOS_H

#include "crash/world.h"

typedef struct scenario {
    const char *name, *script;
    unsigned flags;
} scenario;

static const scenario scenarios[] = {
    /* ---- SYNC_EACH ---- */
    {"create and close", "oz", WORLD_EACH},
    {"one write", "oucz", WORLD_EACH},
    {"single writes", "o5uc", WORLD_EACH},
    {"a replace", "ourtcr", WORLD_EACH},
    {"deletes", "obdndcD", WORLD_EACH},
    {"a batch", "obcb", WORLD_EACH},
    {"a long batch", "oBcB", WORLD_EACH},
    {"mixed batches", "ob2aca", WORLD_EACH},
    {"no payload", "oeuece", WORLD_EACH},
    {"a record of two fragments", "oulcl", WORLD_EACH},
    {"a record of several fragments", "ouLuLc", WORLD_EACH},
    {"the log grows", "oggc", WORLD_EACH},
    {"checkpoint of nothing", "okkc", WORLD_EACH},
    {"checkpoint of one", "oukc", WORLD_EACH},
    {"write on behind a checkpoint", "obkubc", WORLD_EACH},
    {"checkpoints in a row", "oukukuk", WORLD_EACH},
    {"checkpoint of deletes", "obkDkdc", WORLD_EACH},
    {"checkpoint of large records", "oLlkLc", WORLD_EACH},
    {"a checkpoint in vain", "ouKucu", WORLD_EACH},
    {"checkpoints in vain, then one", "ouKuKuku", WORLD_EACH},
    {"eight logs", "o9{uK}uc", WORLD_EACH},
    {"eight logs and a death", "o8{uK}uxux", WORLD_EACH},
    {"the process dies", "ouxuxu", WORLD_EACH},
    {"deaths in a row", "ou4xu", WORLD_EACH},
    {"deaths beyond eight logs", "o9{ux}ux", WORLD_EACH},
    {"death behind a checkpoint", "obkuxkux", WORLD_EACH},
    {"power cuts in a row", "ouqbququ", WORLD_EACH},
    {"power cuts of any kind", "oupbpaprpk", WORLD_EACH},
    {"compact on close", "obcucDc", WORLD_EACH | WORLD_COMPACT},
    {"compact large records", "oLcLc", WORLD_EACH | WORLD_COMPACT},
    {"a full disk", "oubFuugEuc", WORLD_EACH},
    {"a full disk at a checkpoint", "obFkuEkuc", WORLD_EACH},
    {"a full disk at close", "obFuzEou", WORLD_EACH},
    {"a full disk at recovery", "obFxuExu", WORLD_EACH},
    {"room for one more", "ogGgluEgx", WORLD_EACH},
    {"a sync fails", "obIuuxub", WORLD_EACH},
    {"a sync fails at a checkpoint", "obIkuxuk", WORLD_EACH},
    {"a sync fails and the power goes", "obIuqu", WORLD_EACH},
    {"a write fails half-way", "obWuuxu", WORLD_EACH},
    {"reading only in between", "obRuR", WORLD_EACH},
    /* ---- SYNC_FLUSH ---- */
    {"unsynced writes", "o5uc", 0},
    {"unsynced batches", "obubfbuc", 0},
    {"writes and flushes", "oufufufc", 0},
    {"flush of nothing", "offufffc", 0},
    {"many small ones", "o9u9uf9u9rc", 0},
    {"everything again and again", "oBwwfwc", 0},
    {"deletes unsynced", "oBDDfDdc", 0},
    {"mixed unsynced", "ob3af2ac", 0},
    {"fragments unsynced", "olLfLlc", 0},
    {"the log grows unsynced", "ogufguc", 0},
    {"checkpoint of unsynced ones", "oubkubkc", 0},
    {"checkpoint in vain of unsynced ones", "oubKubfKuc", 0},
    {"eight logs unsynced", "o9{ubK}uc", 0},
    {"death unsynced", "oubxubxf", 0},
    {"death after a flush", "oubfubxub", 0},
    {"power cuts unsynced", "oubqubfuqb", 0},
    {"power cuts of any kind unsynced", "oubpBpfrpLp", 0},
    {"compact unsynced", "oubcDubc", WORLD_COMPACT},
    {"compact after a death", "oubxubc", WORLD_COMPACT},
    {"a full disk unsynced", "oBFBBfgEBfc", 0},
    {"a full disk at recovery unsynced", "oBFxEuxc", 0},
    {"a flush fails", "obfuIfuxu", 0},
    {"a write fails half-way unsynced", "obfuWuuxu", 0},
    {"the log grows and the power goes", "ogLpgLq", 0},
    {"verify along the way", "obvkvubvfvc", 0},
    {"a long life", "oubfakrlDcufxBkuKbfpwkacLq", 0},
};
#define SCENARIO_COUNT (sizeof scenarios / sizeof scenarios[0])

/* A random life, for the long runs. */
static inline void scenario_random(uint64_t *seed, char *script, size_t steps) {
    static const char letters[] = "uuuurrtdbbaDlLgenwBffkkKccRxxpqvFEGE";
    size_t at = 0;
    script[at++] = 'o';
    for (size_t i = 0; i < steps; i++) script[at++] = letters[support_random_below(seed, sizeof letters - 1)];
    script[at++] = 'E';
    script[at++] = 'c';
    script[at] = 0;
}

#endif
