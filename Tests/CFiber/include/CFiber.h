/// Stackful coroutines for a simulation: code that blocks runs unchanged, and the scheduler decides who goes on.
///
/// Everything happens on one thread. A fiber must have come to the end of its function before it is destroyed.
#pragma once

typedef struct cfiber cfiber;

/// A fiber that will call `body(argument)` when it is first resumed; null if there is no memory for its stack.
cfiber *_Nullable cfiber_create(void (*_Nonnull body)(void *_Nullable), void *_Nullable argument);

/// Runs the fiber until it yields or ends. Returns whether it has ended.
int cfiber_resume(cfiber *_Nonnull fiber);

/// Goes back to whoever resumed the fiber that runs now.
void cfiber_yield(cfiber *_Nonnull fiber);

void cfiber_destroy(cfiber *_Nonnull fiber);
