#define _XOPEN_SOURCE 700
#define _DEFAULT_SOURCE
#define _DARWIN_C_SOURCE
#include "CFiber.h"
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { stack_bytes = 512 * 1024, guard_bytes = 64 * 1024 };

struct cfiber {
  ucontext_t self, resumer;
  void (*body)(void *);
  void *argument;
  char *stack;
  int ended;
  struct cfiber *next_free;
};

// Stacks are used again: making one costs more than all that a fiber usually does.
static _Thread_local struct cfiber *unused;

// makecontext passes ints: a pointer travels in two.
static void trampoline(unsigned high, unsigned low) {
  cfiber *fiber = (cfiber *)(((uintptr_t)high << 32) | (uintptr_t)low);
  fiber->body(fiber->argument);
  fiber->ended = 1;
  swapcontext(&fiber->self, &fiber->resumer);
}

cfiber *cfiber_create(void (*body)(void *), void *argument) {
  cfiber *fiber = unused;
  if (fiber) {
    unused = fiber->next_free;
  } else {
    fiber = calloc(1, sizeof *fiber);
    if (!fiber) return 0;
    fiber->stack = mmap(0, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fiber->stack == MAP_FAILED || mprotect(fiber->stack, guard_bytes, PROT_NONE) != 0) {
      free(fiber);
      return 0;
    }
  }
  fiber->body = body;
  fiber->argument = argument;
  fiber->ended = 0;
  getcontext(&fiber->self);
  fiber->self.uc_stack.ss_sp = fiber->stack + guard_bytes;
  fiber->self.uc_stack.ss_size = stack_bytes;
  fiber->self.uc_link = 0;
  uintptr_t address = (uintptr_t)fiber;
  makecontext(&fiber->self, (void (*)(void))trampoline, 2, (unsigned)(address >> 32), (unsigned)address);
  return fiber;
}

int cfiber_resume(cfiber *fiber) {
  swapcontext(&fiber->resumer, &fiber->self);
  return fiber->ended;
}

void cfiber_yield(cfiber *fiber) { swapcontext(&fiber->self, &fiber->resumer); }

void cfiber_destroy(cfiber *fiber) {
  fiber->next_free = unused;
  unused = fiber;
}
