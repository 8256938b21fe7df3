// A matched filter's opinion of single atoms: the band-passed image and the noise of the whole (detect/look.py).

#define NARROW 0.8
#define WIDE 2.0

__device__ double blurred(const float* in, const double* P, int r, int c, bool down, double sigma) {
    int pitch = (int)P[P_PITCH], length = down ? (int)P[P_SMALL_ROWS] : (int)P[P_SMALL_COLS], half = (int)ceil(3.0 * sigma);
    double sum = 0.0, total = 0.0;
    for (int k = -half; k <= half; ++k) {
        double w = exp(-0.5 * k * k / (sigma * sigma));
        int at = reflected((down ? r : c) + k, length);
        sum += w * in[down ? at * pitch + c : r * pitch + at];
        total += w;
    }
    return sum / total;
}

// One axis of both Gaussians; edges repeated in reverse.
extern "C" __global__ void band_axis(
    const float* narrow, const float* wide, float* narrow_out, float* wide_out, const double* P, int down, int n) {
    int i = INDEX;
    if (i >= n) return;
    int pitch = (int)P[P_PITCH], r = i / pitch, c = i % pitch;
    if (r >= (int)P[P_SMALL_ROWS] || c >= (int)P[P_SMALL_COLS]) return;
    narrow_out[i] = (float)blurred(narrow, P, r, c, down != 0, NARROW * P[P_SMALL_SIGMA]);
    wide_out[i] = (float)blurred(wide, P, r, c, down != 0, WIDE * P[P_SMALL_SIGMA]);
}

__device__ int thirds(double length) { return ((int)length + 2) / 3; }

// Every third pixel of the band-passed image along each axis; infinity beyond, so that sorting puts it last.
extern "C" __global__ void third_pixels(const float* narrow, const float* wide, float* some, const double* P, int n) {
    int i = INDEX;
    if (i >= n) return;
    int pitch = (int)P[P_PITCH], across = thirds(P[P_PITCH]), r = 3 * (i / across), c = 3 * (i % across);
    bool inside = r < (int)P[P_SMALL_ROWS] && c < (int)P[P_SMALL_COLS];
    some[i] = inside ? narrow[r * pitch + c] - wide[r * pitch + c] : __int_as_float(0x7f800000);
}

__device__ double middle(const float* sorted, int count) {
    return count < 1 ? 0.0 : 0.5 * ((double)sorted[(count - 1) / 2] + (double)sorted[count / 2]);
}

__device__ int third_count(const double* P) { return thirds(P[P_SMALL_ROWS]) * thirds(P[P_SMALL_COLS]); }

extern "C" __global__ void third_median(const float* sorted, const double* P, double* S, int n) {
    if (INDEX < n) S[S_MEDIAN] = middle(sorted, third_count(P));
}

extern "C" __global__ void deviations(float* some, const double* S, int n) {
    int i = INDEX;
    if (i < n) some[i] = fabsf(some[i] - (float)S[S_MEDIAN]);
}

// `sums`: of the contrast and of its square. Where most pixels hold no electron, the median deviation alone would be nought.
extern "C" __global__ void noise_level(const float* sorted, const double* sums, const double* P, double* S, int n) {
    if (INDEX >= n) return;
    double pixels = P[P_SMALL_ROWS] * P[P_SMALL_COLS], mean = sums[0] / pixels, variance = sums[1] / pixels - mean * mean;
    double spread = 1.4826 * middle(sorted, third_count(P)), white = P[P_WHITE] * sqrt(variance > 0.0 ? variance : 0.0);
    double most = spread > white ? spread : white;
    S[S_NOISE] = most > 1e-9 ? most : 1e-9;
}
