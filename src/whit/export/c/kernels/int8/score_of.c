/* A sum as a score: without the `shift` low bits, towards zero. */
static inline int32_t score_of(int64_t sum, int shift)
{
    return (int32_t)(sum < 0 ? -(-sum >> shift) : sum >> shift);
}
