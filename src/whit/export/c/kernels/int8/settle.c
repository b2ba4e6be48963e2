/* A sum in the steps of an output: without the `shift` low bits, and within a byte. */
static inline int32_t settle(int64_t sum, int shift)
{
    const uint64_t level = (uint64_t)(sum < 0 ? 0 : sum) >> shift;
    return level > 255 ? 255 : (int32_t)level;
}
