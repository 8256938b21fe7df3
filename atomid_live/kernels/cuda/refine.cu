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

// Half side of the first pass's square window, and radius of the second's round one, as detect/refine.py has them.
__device__ int first_half(double sigma) { return FIRST_HALF * sigma > 2.0 ? (int)(FIRST_HALF * sigma) : 2; }
__device__ double window_radius(double sigma) { return WINDOW * sigma > LEAST_WINDOW ? WINDOW * sigma : LEAST_WINDOW; }

__device__ double clamped(double v, double limit) { return v < -limit ? -limit : (v > limit ? limit : v); }

struct Window {
    const float* image;
    const float* model;
    int rows, cols, top, left, half;
    float held_y, held_x, held_a, inverse, farthest, gain;
    bool subtract;

    __device__ float pixel(int r, int c) const {
        long long at = (long long)r * cols + c;
        if (!subtract) return image[at];
        float u = (r - held_y) * inverse, v = (c - held_x) * inverse;
        return image[at] - model[at] + (held_a > 0.0f ? held_a * expf(-0.5f * (u * u + v * v)) : 0.0f);
    }
    // Weight of a pixel `u`, `v` widths from the start: one over its variance, nought outside the round window.
    __device__ float weight(int r, int c, float u, float v) const {
        if (!subtract) return 1.0f;
        if (u * u + v * v > farthest) return 0.0f;
        float light = model[(long long)r * cols + c];
        return 1.0f / (1.0f + gain * (light > 0.0f ? light : 0.0f));
    }
    __device__ int first_row() const { return top > 0 ? top : 0; }
    __device__ int last_row() const { return top + 2 * half < rows ? top + 2 * half : rows - 1; }
    __device__ int first_col() const { return left > 0 ? left : 0; }
    __device__ int last_col() const { return left + 2 * half < cols ? left + 2 * half : cols - 1; }
};

struct Sums {
    double pixels, one, g, gg, gy, gx, ggy, ggx, ggyy, ggxx, ggxy, t, tg, tgy, tgx;
};

// The normal equations of height, background, y and x; one line in float, lines in double.
__device__ void gather(const Window& w, double y, double x, Sums& s) {
    s = Sums{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int r = w.first_row(); r <= w.last_row(); ++r) {
        float h = (float)((r - y) * w.inverse), gy = expf(-0.5f * h * h);
        float n = 0, one = 0, a0 = 0, a1 = 0, b0 = 0, b1 = 0, b2 = 0, p0 = 0, p1 = 0, p2 = 0;
        for (int c = w.first_col(); c <= w.last_col(); ++c) {
            float u = (float)((c - x) * w.inverse), weight = w.weight(r, c, h, u);
            if (!(weight > 0.0f)) continue;
            float g = expf(-0.5f * u * u), p = weight * w.pixel(r, c), gu = g * u;
            n += 1.0f;
            one += weight;
            a0 += weight * g;
            a1 += weight * gu;
            b0 += weight * g * g;
            b1 += weight * g * gu;
            b2 += weight * gu * gu;
            p0 += p;
            p1 += g * p;
            p2 += gu * p;
        }
        double own = gy, bent = gy * h;
        s.pixels += n;
        s.one += one;
        s.g += own * a0;
        s.gx += own * a1;
        s.gy += bent * a0;
        s.gg += own * own * b0;
        s.ggx += own * own * b1;
        s.ggxx += own * own * b2;
        s.ggy += own * bent * b0;
        s.ggyy += bent * bent * b0;
        s.ggxy += own * bent * b1;
        s.t += p0;
        s.tg += own * p1;
        s.tgx += own * p2;
        s.tgy += bent * p1;
    }
}

// Errors of the pixels as they are (counting noise is largest on the column): the sandwich, softened by its mean. `pool`, when
// there is one, takes what the residuals show of errors that the pixels of a row or of neighbouring rows have in common.
__device__ void errors(const Window& w, double sigma, double y, double x, const Sums& s, double* row, double* pool) {
    float height = (float)row[C_AMPLITUDE], background = (float)row[C_BACKGROUND];
    double square = 0, chi = 0, own_y = 0, own_x = 0, rows_y = 0, rows_x = 0, lag = 0;
    for (int r = w.first_row(); r <= w.last_row(); ++r) {
        float h = (float)((r - y) * w.inverse), gy = expf(-0.5f * h * h), plain = 0, weighted = 0, along_y = 0, along_x = 0;
        float below = (float)((r + 1 - y) * w.inverse), next = height * expf(-0.5f * below * below);
        double line_y = 0, line_x = 0;
        for (int c = w.first_col(); c <= w.last_col(); ++c) {
            float u = (float)((c - x) * w.inverse), weight = w.weight(r, c, h, u);
            if (!(weight > 0.0f)) continue;
            float g = expf(-0.5f * u * u), e = w.pixel(r, c) - background - height * gy * g, we = weight * e;
            float own = we * we * g * g;
            plain += e * e;
            weighted += we * e;
            along_y += own;
            along_x += own * u * u;
            if (!pool) continue;
            line_y += (double)we * gy * h * g;
            line_x += (double)we * gy * g * u;
            if (r < w.last_row() && w.weight(r + 1, c, below, u) > 0.0f) {
                lag += (double)e * (w.pixel(r + 1, c) - background - next * g);
            }
        }
        square += plain;
        chi += weighted;
        own_y += (double)along_y * gy * gy * h * h;
        own_x += (double)along_x * gy * gy;
        rows_y += line_y * line_y;
        rows_x += line_x * line_x;
    }
    double pixels = s.pixels, spare = pixels > 5.0 ? pixels - 4.0 : 1.0, ny = s.ggyy, nx = s.ggxx;
    double scale = sigma * sigma / ((double)row[C_AMPLITUDE] * row[C_AMPLITUDE]) * pixels / spare;
    row[C_NOISE] = sqrt(square / spare);
    row[C_VAR_Y] = scale * (SANDWICH * own_y / ny + (1.0 - SANDWICH) * chi / pixels) / ny;
    row[C_VAR_X] = scale * (SANDWICH * own_x / nx + (1.0 - SANDWICH) * chi / pixels) / nx;
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

__device__ double squared(double v) { return v * v; }

// First pass: from `start` on the image. Second: from the first's places, with all other columns of the model taken away.
extern "C" __global__ void fit_columns(
    const float* image, const float* model, const double* start, const double* first, double* table, double* pool,
    const double* P, const double* S, int pass, int n) {
    int k = INDEX;
    if (k >= n) return;
    double* seen = pool + (long long)Q_WIDTH * k;
    for (int q = 0; pass && q < Q_WIDTH; ++q) seen[q] = 0.0;
    if (k >= (int)S[S_COUNT]) return;
    double sigma = pass ? S[S_SIGMA] : P[P_SIGMA];
    double from_y = start[2 * k], from_x = start[2 * k + 1];
    const double* held = first + (long long)C_WIDTH * k;
    double* row = table + (long long)C_WIDTH * k;
    bool had = pass && held[C_OK] > 0.0;
    double y0 = had ? held[C_Y] : from_y, x0 = had ? held[C_X] : from_x, y = y0, x = x0, at_y = y0, at_x = x0;
    Window w;
    w.image = image;
    w.model = model;
    w.rows = (int)P[P_ROWS];
    w.cols = (int)P[P_COLS];
    double radius = window_radius(sigma);
    w.half = pass ? (int)(radius + 0.5) : first_half(sigma);
    w.top = (int)floor(y + 0.5) - w.half;
    w.left = (int)floor(x + 0.5) - w.half;
    w.inverse = (float)(1.0 / sigma);
    w.farthest = (float)(squared(radius / sigma));
    w.gain = pass ? (float)S[S_GAIN] : 0.0f;
    w.subtract = pass != 0;
    w.held_y = had ? (float)held[C_Y] : 0.0f;
    w.held_x = had ? (float)held[C_X] : 0.0f;
    w.held_a = had ? (float)(held[C_AMPLITUDE] * S[S_SHRINK]) : 0.0f;
    int high = w.last_row() - w.first_row() + 1, wide = w.last_col() - w.first_col() + 1, side = 2 * w.half + 1;
    double v[4] = {0, 0, 0, 0};
    bool ok = high > 0 && wide > 0, outside = false;
    Sums s;
    if (ok) gather(w, y, x, s);
    ok = ok && s.pixels > 8.0;
    if (ok) {
        double m[16] = {s.gg, 0, 0, 0, s.g, s.one, 0, 0, s.ggy, s.gy, s.ggyy, 0, s.ggx, s.gx, s.ggxy, s.ggxx};
        v[0] = s.tg;
        v[1] = s.t;
        v[2] = s.tgy;
        v[3] = s.tgx;
        ok = solve4(m, v);
        if (!ok) v[0] = v[1] = 0.0;
        ok = ok && v[0] > 0.0;
    }
    if (ok) {
        y += clamped(sigma * v[2] / v[0], 0.5 * sigma);
        x += clamped(sigma * v[3] / v[0], 0.5 * sigma);
        ok = squared(y - from_y) + squared(x - from_x) <= squared(FARTHEST * sigma);
        outside = !(y >= -0.5 && x >= -0.5 && y <= w.rows - 0.5 && x <= w.cols - 0.5);
        ok = ok && !outside;
    }
    bool edge = high < side || wide < side;
    row[C_Y] = ok ? y : from_y;
    row[C_X] = ok ? x : from_x;
    row[C_AMPLITUDE] = v[0] > 0.0 ? v[0] : 0.0;
    row[C_BACKGROUND] = v[1];
    row[C_NOISE] = row[C_VAR_Y] = row[C_VAR_X] = 0.0;
    bool pooled = !edge && k % (1 + (int)S[S_COUNT] / POOLED) == 0;
    if (ok && pass) errors(w, sigma, at_y, at_x, s, row, pooled ? seen : nullptr);
    row[C_OK] = ok ? 1.0 : (outside ? -1.0 : 0.0);
    row[C_EDGE] = edge ? 1.0 : 0.0;
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

// What each of the strongest columns says of the common width: numerator, denominator, and whether it was fitted at all.
extern "C" __global__ void width_terms(
    const float* image, const float* model, const double* table, const double* amplitude, const double* strongest, double* terms,
    const double* P, const double* S, int last, int n) {
    int k = INDEX;
    if (k >= n) return;
    double* term = terms + (long long)WIDTH_TERMS * k;
    for (int t = 0; t < WIDTH_TERMS; ++t) term[t] = 0.0;
    term[2] = amplitude[k] > 0.0 ? 1.0 : 0.0;
    if (!(amplitude[k] > 0.0) || amplitude[k] < strongest[last]) return;
    const double* row = table + (long long)C_WIDTH * k;
    double sigma = P[P_SIGMA], y = row[C_Y], x = row[C_X], a = row[C_AMPLITUDE], inverse = 1.0 / sigma;
    int rows = (int)P[P_ROWS], cols = (int)P[P_COLS], r0 = (int)(y + 0.5), c0 = (int)(x + 0.5);
    double radius = window_radius(sigma);
    int half = (int)(radius + 0.5);
    if (r0 < half || c0 < half || r0 + half >= rows || c0 + half >= cols) return;
    double s1 = 0, sg = 0, sgg = 0, sq = 0, sgq = 0, sqq = 0, te = 0, tge = 0, tqe = 0;
    for (int r = r0 - half; r <= r0 + half; ++r)
        for (int c = c0 - half; c <= c0 + half; ++c) {
            float u = (float)((r - y) * inverse), v = (float)((c - x) * inverse);
            double square = (double)(u * u + v * v);
            if (square * sigma * sigma > radius * radius) continue;
            double g = expf(-0.5f * (float)square), q = g * square;
            double e = (double)image[(long long)r * cols + c] - (double)model[(long long)r * cols + c];
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
            // differences of next pixels hold the noise and little else
            long long at = (long long)r * cols + c + 1;
            double change = (double)image[at] - (double)model[at] - e, mean = 0.5 * ((double)model[at - 1] + (double)model[at]);
            term[3] += 1.0;
            term[4] += mean;
            term[5] += mean * mean;
            term[6] += change * change;
            term[7] += change * change * mean;
        }
    double d = s1 * sgg - sg * sg;
    if (!(d > 1e-9)) return;
    double c_g = (s1 * sgq - sg * sq) / d, c_1 = (sgg * sq - sg * sgq) / d;
    term[0] = a * (tqe - c_g * tge - c_1 * te);
    term[1] = a * a * (sqq - c_g * sgq - c_1 * sq);
}

// Slope over offset of a line through squared changes against the light they were seen in; the offset has a least part.
__device__ double growth(const double* sums) {
    double count = sums[0], level = sums[1], level2 = sums[2], change = sums[3], product = sums[4];
    double spread = count * level2 - level * level;
    if (!(count > 1.0 && spread > 0.0 && change > 0.0)) return 0.0;
    double slope = (count * product - level * change) / spread;
    double dark = (change - slope * level) / count, least = LEAST_DARK * change / count;
    dark = dark > least ? dark : least;
    return slope > 0.0 ? slope / dark : 0.0;
}

// `sums`: of the terms. The width moves by at most a tenth, and stays when the step is under one per cent.
extern "C" __global__ void width_update(const double* sums, const double* P, double* S, int n) {
    if (INDEX >= n) return;
    double sigma = P[P_SIGMA], wider = sigma;
    if (P[P_FIT_WIDTH] != 0.0 && sums[2] >= 20.0 && sums[1] > 0.0) wider = sigma + clamped(sigma * sums[0] / sums[1], 0.1 * sigma);
    double change = wider / sigma - 1.0;
    bool changed = change >= 0.01 || change <= -0.01;
    S[S_GAIN] = P[P_FIT_WIDTH] != 0.0 && sums[2] >= 20.0 ? growth(sums + 3) : 0.0;
    S[S_CHANGED] = changed ? 1.0 : 0.0;
    S[S_SIGMA] = changed ? wider : sigma;
    S[S_SHRINK] = changed ? (sigma / wider) * (sigma / wider) : 1.0;
}
