/* Startup code of a Cortex-M: vector table, initialization of RAM, floating-point unit. */
#include <stdint.h>

extern uint32_t stack_top, data_start, data_end, data_stored, bss_start, bss_end;
extern void run(void);

static void fault(void)
{
    for (;;)
        ;
}

void start(void)
{
    const uint32_t *from = &data_stored;
    for (uint32_t *to = &data_start; to < &data_end; to++)
        *to = *from++;
    for (uint32_t *to = &bss_start; to < &bss_end; to++)
        *to = 0;
#ifdef __ARM_FP
    *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* CPACR: enable access to the FPU */
#endif
    run();
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (const void *)start, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault,
};
