/* A sum in the steps of an output: without the `shift` low bits, and within a byte. */
static inline uint8_t settle(int64_t sum, int shift)
{
    if (sum < 0)
        return 0;
    sum >>= shift;
    return sum > 255 ? 255 : (uint8_t)sum;
}
