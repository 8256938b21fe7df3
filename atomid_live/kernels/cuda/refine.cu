// Sub-pixel positions: the fit of detect/refine.py, one thread per column; the model of all columns is gathered per pixel
// from bins, never scattered, so that sums have one order and the answer is the same every time.

// Cholesky solution of a symmetric 4x4 system, in place.
__device__ bool solve4(double* m, double* v) {
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j <= i; ++j) {
            double s = m[4 * i + j];
            for (int k = 0; k < j; ++k) s -= m[4 * i + k] * m[4 * j + k];
            if (i == j) {
                if (!(s > 1e-12)) return false;
                m[4 * i + i] = sqrt(s);
            } else {
                m[4 * i + j] = s / m[4 * j + j];
            }
        }
    for (int i = 0; i < 4; ++i) {
        for (int k = 0; k < i; ++k) v[i] -= m[4 * i + k] * v[k];
        v[i] /= m[4 * i + i];
    }
    for (int i = 3; i >= 0; --i) {
        for (int k = i + 1; k < 4; ++k) v[i] -= m[4 * k + i] * v[k];
        v[i] /= m[4 * i + i];
    }
    return true;
}

__device__ double clamped(double v, double limit) { return v < -limit ? -limit : (v > limit ? limit : v); }

__device__ double squared(double v) { return v * v; }

__device__ int first_half(double sigma) { return FIRST_HALF * sigma > 2.0 ? (int)(FIRST_HALF * sigma) : 2; }

__device__ double window_radius(double sigma) { return WINDOW * sigma > LEAST_WINDOW ? WINDOW * sigma : LEAST_WINDOW; }

// A square of pixels around a place, cut by the frame.
struct Window {
    int rows, cols, top, left, side;
    double y, x;
    float inverse;

    __device__ Window(const double* P, double y_, double x_, double sigma, int half)
        : rows((int)P[P_ROWS]), cols((int)P[P_COLS]), top((int)floor(y_ + 0.5) - half), left((int)floor(x_ + 0.5) - half),
          side(2 * half + 1), y(y_), x(x_), inverse((float)(1.0 / sigma)) {}
    __device__ int first_row() const { return top > 0 ? top : 0; }
    __device__ int last_row() const { return top + side < rows ? top + side - 1 : rows - 1; }
    __device__ int first_col() const { return left > 0 ? left : 0; }
    __device__ int last_col() const { return left + side < cols ? left + side - 1 : cols - 1; }
    __device__ int high() const { return last_row() - first_row() + 1; }
    __device__ int wide() const { return last_col() - first_col() + 1; }
    __device__ bool edge() const { return high() < side || wide() < side; }
    __device__ float up(int r) const { return (float)((r - y) * inverse); }
    __device__ float aside(int c) const { return (float)((c - x) * inverse); }
};

// Where a step of the fit from (y, x) ends, as a row of the table: it must stay near the peak and on the frame.
__device__ bool accept(const Window& w, const double* v, bool solved, double sigma, double peak_y, double peak_x, double* row) {
    bool ok = solved && v[0] > 0.0, outside = false;
    double y = peak_y, x = peak_x;
    if (ok) {
        double to_y = w.y + clamped(sigma * v[2] / v[0], 0.5 * sigma), to_x = w.x + clamped(sigma * v[3] / v[0], 0.5 * sigma);
        ok = squared(to_y - y) + squared(to_x - x) <= squared(FARTHEST * sigma);
        outside = !(to_y >= -0.5 && to_x >= -0.5 && to_y <= w.rows - 0.5 && to_x <= w.cols - 0.5);
        ok = ok && !outside;
        if (ok) {
            y = to_y;
            x = to_x;
        }
    }
    row[C_Y] = y;
    row[C_X] = x;
    row[C_AMPLITUDE] = solved && v[0] > 0.0 ? v[0] : 0.0;
    row[C_BACKGROUND] = solved ? v[1] : 0.0;
    row[C_NOISE] = row[C_VAR_Y] = row[C_VAR_X] = 0.0;
    row[C_OK] = ok ? 1.0 : (outside ? -1.0 : 0.0);
    row[C_EDGE] = w.edge() ? 1.0 : 0.0;
    return ok;
}

// Normal equations of height, background, y and x, unweighted: `m` their lower half, `v` their right side. One line in float,
// lines in double. `zero` is taken off the pixels.
__device__ void gather(const float* image, const Window& w, float zero, double* m, double* v) {
    for (int k = 0; k < 16; ++k) m[k] = 0.0;
    for (int k = 0; k < 4; ++k) v[k] = 0.0;
    for (int r = w.first_row(); r <= w.last_row(); ++r) {
        float h = w.up(r), gy = expf(-0.5f * h * h), a0 = 0, a1 = 0, b0 = 0, b1 = 0, b2 = 0, p0 = 0, p1 = 0, p2 = 0;
        for (int c = w.first_col(); c <= w.last_col(); ++c) {
            float u = w.aside(c), g = expf(-0.5f * u * u), p = image[(long long)r * w.cols + c] - zero, gu = g * u;
            a0 += g;
            a1 += gu;
            b0 += g * g;
            b1 += g * gu;
            b2 += gu * gu;
            p0 += p;
            p1 += g * p;
            p2 += gu * p;
        }
        double one = gy, bent = gy * h;
        m[0] += one * one * b0;
        m[4] += one * a0;
        m[8] += one * bent * b0;
        m[9] += bent * a0;
        m[10] += bent * bent * b0;
        m[12] += one * one * b1;
        m[13] += one * a1;
        m[14] += one * bent * b1;
        m[15] += one * one * b2;
        v[0] += one * p1;
        v[1] += p0;
        v[2] += bent * p1;
        v[3] += one * p2;
    }
    m[5] = (double)w.high() * w.wide();
}

// First pass: one step on the image, neighbours and all.
extern "C" __global__ void fit_alone(
    const float* image, const double* start, double* table, const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n || k >= (int)S[S_COUNT]) return;
    double sigma = P[P_SIGMA], y = start[2 * k], x = start[2 * k + 1], m[16], v[4] = {0, 0, 0, 0};
    Window w(P, y, x, sigma, first_half(sigma));
    bool solved = w.high() > 0 && w.wide() > 0 && w.high() * w.wide() > 8;
    if (solved) {
        gather(image, w, 0.0f, m, v);
        solved = solve4(m, v);
    }
    accept(w, v, solved, sigma, y, x, table + (long long)C_WIDTH * k);
}

// Pixels of a column among others: the model's taken away but for its own part, each with the weight of its noise.
struct Among {
    const float* image;
    const float* model;
    float own, gain, farthest;

    __device__ float light(const Window& w, int r, int c) const { return model[(long long)r * w.cols + c]; }
    __device__ float weight(const Window& w, int r, int c) const {
        float u = w.up(r), t = w.aside(c), lit = light(w, r, c);
        return u * u + t * t <= farthest ? 1.0f / (1.0f + gain * (lit > 0.0f ? lit : 0.0f)) : 0.0f;
    }
    __device__ float gauss(const Window& w, int r, int c) const {
        float u = w.up(r), t = w.aside(c);
        return expf(-0.5f * u * u) * expf(-0.5f * t * t);
    }
    __device__ float pixel(const Window& w, int r, int c, float g) const {
        return image[(long long)r * w.cols + c] - light(w, r, c) + own * g;
    }
};

__device__ int gather_among(const Among& a, const Window& w, double* m, double* v) {
    int count = 0;
    for (int k = 0; k < 16; ++k) m[k] = 0.0;
    for (int k = 0; k < 4; ++k) v[k] = 0.0;
    for (int r = w.first_row(); r <= w.last_row(); ++r) {
        float s[14] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
        for (int c = w.first_col(); c <= w.last_col(); ++c) {
            float q = a.weight(w, r, c);
            if (!(q > 0.0f)) continue;
            float g = a.gauss(w, r, c), p = a.pixel(w, r, c, g), gu = g * w.up(r), gt = g * w.aside(c);
            count += 1;
            s[0] += q * g * g;
            s[1] += q * g;
            s[2] += q;
            s[3] += q * gu * g;
            s[4] += q * gu;
            s[5] += q * gu * gu;
            s[6] += q * gt * g;
            s[7] += q * gt;
            s[8] += q * gt * gu;
            s[9] += q * gt * gt;
            s[10] += q * g * p;
            s[11] += q * p;
            s[12] += q * gu * p;
            s[13] += q * gt * p;
        }
        const int place[10] = {0, 4, 5, 8, 9, 10, 12, 13, 14, 15};
        for (int k = 0; k < 10; ++k) m[place[k]] += s[k];
        for (int k = 0; k < 4; ++k) v[k] += s[10 + k];
    }
    return count;
}

// Errors of the pixels as they are (counting noise is largest on the column): the sandwich, softened by its mean. `pool`, when
// there is one, takes what the residuals show of errors that the pixels of a row or of neighbouring rows have in common.
__device__ void errors(
    const Among& a, const Window& w, double sigma, const double* v, double ny, double nx, int pixels, double* row, double* pool) {
    float height = (float)v[0], background = (float)v[1];
    double square = 0, weighted = 0, own_y = 0, own_x = 0, rows_y = 0, rows_x = 0, lag = 0;
    for (int r = w.first_row(); r <= w.last_row(); ++r) {
        double line_y = 0, line_x = 0;
        for (int c = w.first_col(); c <= w.last_col(); ++c) {
            float q = a.weight(w, r, c);
            if (!(q > 0.0f)) continue;
            float g = a.gauss(w, r, c), e = a.pixel(w, r, c, g) - background - height * g;
            double along_y = (double)q * e * g * w.up(r), along_x = (double)q * e * g * w.aside(c);
            square += (double)e * e;
            weighted += (double)q * e * e;
            own_y += along_y * along_y;
            own_x += along_x * along_x;
            if (!pool) continue;
            line_y += along_y;
            line_x += along_x;
            if (r < w.last_row() && a.weight(w, r + 1, c) > 0.0f) {
                float below = a.gauss(w, r + 1, c);
                lag += (double)e * (a.pixel(w, r + 1, c, below) - background - height * below);
            }
        }
        rows_y += line_y * line_y;
        rows_x += line_x * line_x;
    }
    double spare = pixels > 5 ? pixels - 4.0 : 1.0, scale = sigma * sigma / (v[0] * v[0]) * pixels / spare;
    row[C_NOISE] = sqrt(square / spare);
    row[C_VAR_Y] = scale * (SANDWICH * own_y / ny + (1.0 - SANDWICH) * weighted / pixels) / ny;
    row[C_VAR_X] = scale * (SANDWICH * own_x / nx + (1.0 - SANDWICH) * weighted / pixels) / nx;
    if (!pool || !(square > 0.0)) return;
    double unit = pixels / square;
    pool[Q_OWN_Y] = own_y * unit;
    pool[Q_ROWS_Y] = rows_y * unit;
    pool[Q_OWN_X] = own_x * unit;
    pool[Q_ROWS_X] = rows_x * unit;
    pool[Q_LAG] = lag * unit;
    pool[Q_SQUARE] = square * unit;
    pool[Q_COLUMNS] = 1.0;
}

// Second pass: from the first's places, with all other columns of the model taken away.
extern "C" __global__ void fit_among(
    const float* image, const float* model, const double* start, const double* first, double* table, double* pool,
    const double* P, const double* S, int n) {
    int k = INDEX;
    if (k >= n) return;
    double* seen = pool + (long long)Q_WIDTH * k;
    for (int q = 0; q < Q_WIDTH; ++q) seen[q] = 0.0;
    if (k >= (int)S[S_COUNT]) return;
    const double* held = first + (long long)C_WIDTH * k;
    double* row = table + (long long)C_WIDTH * k;
    bool had = held[C_OK] > 0.0;
    double sigma = S[S_SIGMA], radius = window_radius(sigma), m[16], v[4] = {0, 0, 0, 0};
    double y = had ? held[C_Y] : start[2 * k], x = had ? held[C_X] : start[2 * k + 1];
    Window w(P, y, x, sigma, (int)(radius + 0.5));
    Among a{image, model, had ? (float)(held[C_AMPLITUDE] * S[S_SHRINK]) : 0.0f, (float)S[S_GAIN],
            (float)squared(radius / sigma)};
    int pixels = gather_among(a, w, m, v);
    double ny = m[10], nx = m[15];
    bool solved = pixels > 8 && solve4(m, v);
    if (!accept(w, v, solved, sigma, start[2 * k], start[2 * k + 1], row)) return;
    bool pooled = !w.edge() && k % (1 + (int)S[S_COUNT] / POOLED) == 0;
    errors(a, w, sigma, v, ny, nx, pixels, row, pooled ? seen : nullptr);
}

__device__ int bin_of(double v, double size, int count) {
    int b = (int)floor(v / size);
    return b < 0 ? 0 : (b >= count ? count - 1 : b);
}

__device__ int bin_count(double length, double size) { return (int)ceil(length / size); }

// The bin of each column; those that do not take part come after all bins.
extern "C" __global__ void bin_columns(const double* table, int* bin, const double* P, const double* S, int fitted_only, int n) {
    int k = INDEX;
    if (k >= n) return;
    const double* row = table + (long long)C_WIDTH * k;
    int rows = bin_count(P[P_ROWS], P[P_BIN_PX]), cols = bin_count(P[P_COLS], P[P_BIN_PX]);
    bool part = k < (int)S[S_COUNT] && (!fitted_only || (row[C_OK] > 0.0 && row[C_AMPLITUDE] > 0.0));
    bin[k] = part ? bin_of(row[C_Y], P[P_BIN_PX], rows) * cols + bin_of(row[C_X], P[P_BIN_PX], cols) : 0x7fffffff;
}

// First and one past the last place of each bin in the sorted list; both were set to nought before.
extern "C" __global__ void bin_edges(const int* sorted, int* begin, int* end, int n) {
    int k = INDEX;
    if (k >= n || sorted[k] == 0x7fffffff) return;
    if (k == 0 || sorted[k - 1] != sorted[k]) begin[sorted[k]] = k;
    if (k == n - 1 || sorted[k + 1] != sorted[k]) end[sorted[k]] = k + 1;
}

extern "C" __global__ void render(
    const double* table, const long long* order, const int* begin, const int* end, float* model, const double* P, const double* S,
    int pass, int n) {
    int i = INDEX;
    if (i >= n || (pass && S[S_CHANGED] == 0.0)) return;
    int cols = (int)P[P_COLS], r = i / cols, c = i % cols;
    double sigma = pass ? S[S_SIGMA] : P[P_SIGMA], size = P[P_BIN_PX];
    float inverse = (float)(1.0 / sigma), shrink = pass ? (float)S[S_SHRINK] : 1.0f, sum = 0.0f;
    int half = (int)ceil(MODEL * sigma), bin_rows = bin_count(P[P_ROWS], size), bin_cols = bin_count(P[P_COLS], size);
    int i0 = bin_of(r, size, bin_rows), j0 = bin_of(c, size, bin_cols);
    for (int a = i0 > 0 ? i0 - 1 : 0; a <= i0 + 1 && a < bin_rows; ++a)
        for (int b = j0 > 0 ? j0 - 1 : 0; b <= j0 + 1 && b < bin_cols; ++b)
            for (int k = begin[a * bin_cols + b]; k < end[a * bin_cols + b]; ++k) {
                const double* row = table + (long long)C_WIDTH * order[k];
                int dr = r - (int)(row[C_Y] + 0.5), dc = c - (int)(row[C_X] + 0.5);
                if (dr < -half || dr > half || dc < -half || dc > half) continue;
                float u = (float)(r - row[C_Y]) * inverse, v = (float)(c - row[C_X]) * inverse;
                sum += shrink * (float)row[C_AMPLITUDE] * expf(-0.5f * (u * u + v * v));
            }
    model[i] = sum;
}

extern "C" __global__ void list_amplitudes(const double* table, double* amplitude, const double* S, int n) {
    int k = INDEX;
    if (k >= n) return;
    const double* row = table + (long long)C_WIDTH * k;
    bool part = k < (int)S[S_COUNT] && row[C_OK] > 0.0 && row[C_AMPLITUDE] > 0.0;
    amplitude[k] = part ? row[C_AMPLITUDE] : 0.0;
}

// What each of the strongest columns says of the common width, and squared differences of pixels next to each other against
// the light there: they hold the noise and little else.
extern "C" __global__ void width_terms(
    const float* image, const float* model, const double* table, const double* amplitude, const double* strongest, double* terms,
    const double* P, int last, int n) {
    int k = INDEX;
    if (k >= n) return;
    double* term = terms + (long long)T_WIDTH * k;
    for (int t = 0; t < T_WIDTH; ++t) term[t] = 0.0;
    term[T_FITTED] = amplitude[k] > 0.0 ? 1.0 : 0.0;
    if (!(amplitude[k] > 0.0) || amplitude[k] < strongest[last]) return;
    const double* row = table + (long long)C_WIDTH * k;
    double sigma = P[P_SIGMA], y = row[C_Y], x = row[C_X], a = row[C_AMPLITUDE], inverse = 1.0 / sigma;
    double radius = window_radius(sigma);
    int rows = (int)P[P_ROWS], cols = (int)P[P_COLS], half = (int)(radius + 0.5), r0 = (int)(y + 0.5), c0 = (int)(x + 0.5);
    if (r0 < half || c0 < half || r0 + half >= rows || c0 + half >= cols) return;
    double s1 = 0, sg = 0, sgg = 0, sq = 0, sgq = 0, sqq = 0, te = 0, tge = 0, tqe = 0;
    for (int r = r0 - half; r <= r0 + half; ++r)
        for (int c = c0 - half; c <= c0 + half; ++c) {
            float u = (float)((r - y) * inverse), v = (float)((c - x) * inverse);
            double square = (double)(u * u + v * v);
            if (square * sigma * sigma > radius * radius) continue;
            long long at = (long long)r * cols + c;
            double g = expf(-0.5f * (float)square), q = g * square, e = (double)image[at] - (double)model[at];
            s1 += 1.0;
            sg += g;
            sgg += g * g;
            sq += q;
            sgq += g * q;
            sqq += q * q;
            te += e;
            tge += g * e;
            tqe += q * e;
            if (c == c0 + half) continue;
            double change = squared((double)image[at + 1] - (double)model[at + 1] - e);
            double light = 0.5 * ((double)model[at] + (double)model[at + 1]);
            term[T_COUNT] += 1.0;
            term[T_LEVEL] += light;
            term[T_LEVEL2] += light * light;
            term[T_CHANGE] += change;
            term[T_PRODUCT] += change * light;
        }
    double d = s1 * sgg - sg * sg;
    if (!(d > 1e-9)) return;
    double c_g = (s1 * sgq - sg * sq) / d, c_1 = (sgg * sq - sg * sgq) / d;
    term[T_UPPER] = a * (tqe - c_g * tge - c_1 * te);
    term[T_LOWER] = a * a * (sqq - c_g * sgq - c_1 * sq);
}

// By how much a pixel's variance grows with light, in units of its dark part: slope over offset of a straight line.
__device__ double noise_growth(const double* t) {
    double spread = t[T_COUNT] * t[T_LEVEL2] - t[T_LEVEL] * t[T_LEVEL];
    if (!(t[T_COUNT] > 1.0 && spread > 0.0 && t[T_CHANGE] > 0.0)) return 0.0;
    double slope = (t[T_COUNT] * t[T_PRODUCT] - t[T_LEVEL] * t[T_CHANGE]) / spread;
    double dark = (t[T_CHANGE] - slope * t[T_LEVEL]) / t[T_COUNT], least = LEAST_DARK * t[T_CHANGE] / t[T_COUNT];
    double gain = slope / (dark > least ? dark : least);
    return gain > 0.0 ? gain : 0.0;
}

// `sums`: of the terms. The width moves by at most a tenth, and stays when the step is under one per cent.
extern "C" __global__ void width_update(const double* sums, const double* P, double* S, int n) {
    if (INDEX >= n) return;
    double sigma = P[P_SIGMA], wider = sigma;
    bool asked = P[P_FIT_WIDTH] != 0.0 && sums[T_FITTED] >= FEWEST;
    if (asked && sums[T_LOWER] > 0.0) wider = sigma + clamped(sigma * sums[T_UPPER] / sums[T_LOWER], 0.1 * sigma);
    double change = wider / sigma - 1.0;
    bool changed = change >= 0.01 || change <= -0.01;
    S[S_CHANGED] = changed ? 1.0 : 0.0;
    S[S_SIGMA] = changed ? wider : sigma;
    S[S_SHRINK] = changed ? (sigma / wider) * (sigma / wider) : 1.0;
    S[S_GAIN] = asked ? noise_growth(sums) : 0.0;
}
