/* Probabilities of the classes; the largest is taken off first, so that no exponential overflows. */
static void softmax(const float *in, int count, float *out)
{
    float largest = in[0], sum = 0;
    for (int i = 1; i < count; i++)
        largest = in[i] > largest ? in[i] : largest;
    for (int i = 0; i < count; i++)
        sum += out[i] = expf(in[i] - largest);
    for (int i = 0; i < count; i++)
        out[i] /= sum;
}
