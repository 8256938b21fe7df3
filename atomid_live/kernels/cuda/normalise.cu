// Raw pixels to what the network sees. One thread per output element; no thread depends on another's result of the same launch.

#define INDEX (blockIdx.x * blockDim.x + threadIdx.x)

#define TO_FLOAT(NAME, TYPE)                                                                     \
    extern "C" __global__ void NAME(const TYPE* raw, float* image, const double* P, int n) {     \
        int i = INDEX;                                                                           \
        if (i >= n) return;                                                                      \
        float v = (float)((double)raw[i] - P[P_OFFSET]);                                         \
        image[i] = P[P_INVERTED] != 0.0 ? (float)P[P_TOP] - v : v;                               \
    }

TO_FLOAT(to_float_u8, unsigned char)
TO_FLOAT(to_float_i8, signed char)
TO_FLOAT(to_float_u16, unsigned short)
TO_FLOAT(to_float_i16, short)
TO_FLOAT(to_float_u32, unsigned int)
TO_FLOAT(to_float_i32, int)
TO_FLOAT(to_float_f32, float)
TO_FLOAT(to_float_f64, double)

// Part of source sample s that lies inside output sample o: both are intervals on one axis.
__device__ double overlap(int s, double first, double last) {
    double a = first > s ? first : s, b = last < s + 1 ? last : s + 1;
    return b > a ? b - a : 0.0;
}

extern "C" __global__ void resample_area(const float* image, float* small, const double* P, int n) {
    int i = INDEX;
    if (i >= n) return;
    int pitch = (int)P[P_PITCH], rows = (int)P[P_ROWS], cols = (int)P[P_COLS];
    int small_rows = (int)P[P_SMALL_ROWS], small_cols = (int)P[P_SMALL_COLS];
    int r = i / pitch, c = i % pitch;
    if (r >= small_rows || c >= small_cols) {
        small[i] = 0.0f;
        return;
    }
    double step_y = (double)rows / small_rows, step_x = (double)cols / small_cols;
    double top = r * step_y, left = c * step_x, bottom = top + step_y, right = left + step_x;
    int last_row = (int)ceil(bottom - 1e-9), last_col = (int)ceil(right - 1e-9);
    if (last_row > rows) last_row = rows;
    if (last_col > cols) last_col = cols;
    double sum = 0.0;
    for (int y = (int)top; y < last_row; ++y) {
        double line = 0.0;
        for (int x = (int)left; x < last_col; ++x) line += overlap(x, left, right) * image[(long long)y * cols + x];
        sum += overlap(y, top, bottom) * line;
    }
    small[i] = (float)(sum / (step_y * step_x));
}

#define CELL 8
#define REACH 8

extern "C" __global__ void cell_means(const float* small, double* mean, double* power, const double* P, int n) {
    int i = INDEX;
    if (i >= n) return;
    int pitch = (int)P[P_PITCH], rows = (int)P[P_SMALL_ROWS], cols = (int)P[P_SMALL_COLS];
    int cells = pitch / CELL, r = i / cells, c = i % cells;
    double one = 0.0, two = 0.0;
    for (int k = 0; k < CELL; ++k)
        for (int l = 0; l < CELL; ++l) {
            int y = r * CELL + k, x = c * CELL + l;
            double v = small[(y < rows ? y : rows - 1) * pitch + (x < cols ? x : cols - 1)];
            one += v;
            two += v * v;
        }
    mean[i] = one / (CELL * CELL);
    power[i] = two / (CELL * CELL);
}

__device__ int reflected(int p, int n) {
    while (p < 0 || p >= n) p = p < 0 ? -p - 1 : 2 * n - 1 - p;
    return p;
}

// Gaussian of two cells along one axis, edges repeated in reverse.
extern "C" __global__ void blur_cells(
    const double* mean, const double* power, double* mean_out, double* power_out, const double* P, int down, int n) {
    int i = INDEX;
    if (i >= n) return;
    int cells = (int)P[P_PITCH] / CELL;
    int rows = ((int)P[P_SMALL_ROWS] + CELL - 1) / CELL, cols = ((int)P[P_SMALL_COLS] + CELL - 1) / CELL;
    int r = i / cells, c = i % cells;
    if (r >= rows || c >= cols) return;
    double one = 0.0, two = 0.0, total = 0.0;
    for (int k = -REACH; k <= REACH; ++k) {
        int at = down ? reflected(r + k, rows) * cells + c : r * cells + reflected(c + k, cols);
        double w = exp(-0.125 * k * k);
        one += w * mean[at];
        two += w * power[at];
        total += w;
    }
    mean_out[i] = one / total;
    power_out[i] = two / total;
}

// Local standard deviation in place of the power, and the largest of the frame; floats of one sign order like their bits.
extern "C" __global__ void cell_spread(const double* mean, double* power, int* largest, const double* P, int n) {
    int i = INDEX;
    if (i >= n) return;
    int cells = (int)P[P_PITCH] / CELL;
    int rows = ((int)P[P_SMALL_ROWS] + CELL - 1) / CELL, cols = ((int)P[P_SMALL_COLS] + CELL - 1) / CELL;
    if (i / cells >= rows || i % cells >= cols) return;
    double variance = power[i] - mean[i] * mean[i];
    double spread = variance > 1e-12 * power[i] ? sqrt(variance) : 0.0;
    power[i] = spread;
    atomicMax(largest, __float_as_int((float)spread));
}

__device__ float mix(float a, float b, float u) { return a + u * (b - a); }

extern "C" __global__ void local_contrast(
    const float* small, const double* mean, const double* spread, const int* largest, float* out, const double* P, int n) {
    int i = INDEX;
    if (i >= n) return;
    int pitch = (int)P[P_PITCH], rows = (int)P[P_SMALL_ROWS], cols = (int)P[P_SMALL_COLS];
    int r = i / pitch, c = i % pitch;
    if (r >= rows || c >= cols) {
        out[i] = 0.0f;
        return;
    }
    int cells = pitch / CELL, cell_rows = (rows + CELL - 1) / CELL, cell_cols = (cols + CELL - 1) / CELL;
    double top = __int_as_float(*largest), least = 1e-6 * (top > 1e-12 ? top : 1e-12);
    double y = (r + 0.5) / CELL - 0.5;
    y = y < 0.0 ? 0.0 : (y > cell_rows - 1.0 ? cell_rows - 1.0 : y);
    int above = cell_rows > 1 && (int)y > cell_rows - 2 ? cell_rows - 2 : (int)y;
    int below = above + 1 < cell_rows ? above + 1 : cell_rows - 1;
    int j = (c + CELL / 2) / CELL - 1;
    int left = j > 0 ? j : 0, right = j + 1 < cell_cols ? j + 1 : cell_cols - 1;
    float v = (float)(y - above), u = (c - (j * CELL + CELL / 2) + 0.5f) / CELL;
    float m[4], g[4];
    int at[4] = {above * cells + left, above * cells + right, below * cells + left, below * cells + right};
    for (int k = 0; k < 4; ++k) {
        m[k] = (float)mean[at[k]];
        g[k] = spread[at[k]] > least ? (float)(1.0 / spread[at[k]]) : 0.0f;
    }
    float value = (small[i] - mix(mix(m[0], m[2], v), mix(m[1], m[3], v), u)) * mix(mix(g[0], g[2], v), mix(g[1], g[3], v), u);
    out[i] = value < -6.0f ? -6.0f : (value > 6.0f ? 6.0f : value);
}
