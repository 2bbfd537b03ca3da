/* m3retriever.kernels._native: the compiled inner loops behind Python's buffers. Every size is checked here. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "cpu.h"
#include "maxsim.h"
#include "postings.h"

#include <stdlib.h>

/* The buffers of a sequence of Python objects, held for as long as a call lasts. */
typedef struct {
    PyObject *items;
    Py_buffer *views;
    Py_ssize_t count;
} Buffers;

static void release(Buffers *buffers) {
    for (Py_ssize_t i = 0; i < buffers->count; i++)
        PyBuffer_Release(&buffers->views[i]);
    PyMem_Free(buffers->views);
    Py_CLEAR(buffers->items);
    buffers->views = NULL, buffers->count = 0;
}

static int hold(PyObject *sequence, Buffers *buffers) {
    buffers->views = NULL, buffers->count = 0;
    buffers->items = PySequence_Fast(sequence, "want a sequence of buffers");
    if (!buffers->items)
        return 0;
    Py_ssize_t size = PySequence_Fast_GET_SIZE(buffers->items);
    buffers->views = PyMem_Calloc((size_t)size + 1, sizeof *buffers->views);
    if (!buffers->views) {
        PyErr_NoMemory();
        release(buffers);
        return 0;
    }
    for (; buffers->count < size; buffers->count++)
        if (PyObject_GetBuffer(PySequence_Fast_GET_ITEM(buffers->items, buffers->count), &buffers->views[buffers->count],
                               PyBUF_C_CONTIGUOUS)) {
            release(buffers);
            return 0;
        }
    return 1;
}

static int refuse(int holds, const char *message) {
    if (!holds)
        PyErr_SetString(PyExc_ValueError, message);
    return holds;
}

/* Pairs of codes and scales as rows; NULL with an exception set where their sizes do not fit. */
static Rows *as_rows(const Buffers *codes, const Buffers *scales, Py_ssize_t dim) {
    if (!refuse(dim > 0 && codes->count == scales->count, "codes and scales must go together"))
        return NULL;
    Rows *rows = PyMem_Calloc((size_t)codes->count + 1, sizeof *rows);
    if (!rows) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < codes->count; i++) {
        rows[i] = (Rows){codes->views[i].buf, scales->views[i].buf, codes->views[i].len / dim};
        if (!refuse(rows[i].count * dim == codes->views[i].len && rows[i].count * 4 <= scales->views[i].len,
                    "codes must hold whole rows, and a scale for each")) {
            PyMem_Free(rows);
            return NULL;
        }
    }
    return rows;
}

/* quantize(values, dim, codes, scales, threads): float32 rows to int8 codes and a scale for each row. */
static PyObject *native_quantize(PyObject *self, PyObject *arguments) {
    Py_buffer values, codes, scales;
    Py_ssize_t dim;
    int threads, done = 0;
    if (!PyArg_ParseTuple(arguments, "y*nw*w*i", &values, &dim, &codes, &scales, &threads))
        return NULL;
    Py_ssize_t count = dim > 0 ? codes.len / dim : 0;
    int fits = refuse(dim > 0 && values.len == 4 * count * dim && codes.len == count * dim && scales.len == 4 * count,
                      "values, codes and scales must have the same rows");
    if (fits) {
        Py_BEGIN_ALLOW_THREADS;
        done = quantize_rows(values.buf, count, dim, codes.buf, scales.buf, threads);
        Py_END_ALLOW_THREADS;
        if (!done)
            PyErr_NoMemory();
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&codes);
    PyBuffer_Release(&scales);
    if (!done)
        return NULL;
    Py_RETURN_NONE;
}

typedef struct {
    Py_buffer codes, coarse, fine, out;
} Arrays;

static void release_arrays(Arrays *arrays) {
    PyBuffer_Release(&arrays->codes);
    PyBuffer_Release(&arrays->coarse);
    PyBuffer_Release(&arrays->fine);
    PyBuffer_Release(&arrays->out);
}

static int as_codes(const Arrays *arrays, Py_ssize_t dim, Codes *query) {
    *query = (Codes){arrays->codes.buf, arrays->coarse.buf, arrays->fine.buf, (int)(arrays->coarse.len / 4), dim};
    return refuse(dim > 0 && arrays->codes.len == 2 * (Py_ssize_t)query->tokens * dim && arrays->fine.len == arrays->coarse.len,
                  "the query must have coarse and fine codes and a scale for each");
}

/* best_matches(codes, scales, dim, query, coarse, fine, out, threads, level) */
static PyObject *native_best_matches(PyObject *self, PyObject *arguments) {
    PyObject *codes_of, *scales_of, *result = NULL;
    Arrays arrays;
    Py_ssize_t dim;
    int threads, level, done = 0;
    Buffers codes = {0}, scales = {0};
    Codes query;
    Rows *rows = NULL;
    if (!PyArg_ParseTuple(arguments, "OOny*y*y*w*ii", &codes_of, &scales_of, &dim, &arrays.codes, &arrays.coarse, &arrays.fine,
                          &arrays.out, &threads, &level))
        return NULL;
    if (as_codes(&arrays, dim, &query) && hold(codes_of, &codes) && hold(scales_of, &scales) &&
        (rows = as_rows(&codes, &scales, dim)) &&
        refuse(arrays.out.len == 4 * codes.count * query.tokens && level <= best_level(), "out or level does not fit")) {
        Py_BEGIN_ALLOW_THREADS;
        done = best_matches(rows, codes.count, &query, arrays.out.buf, threads, level);
        Py_END_ALLOW_THREADS;
        result = done ? Py_NewRef(Py_None) : PyErr_NoMemory();
    }
    PyMem_Free(rows);
    release(&codes);
    release(&scales);
    release_arrays(&arrays);
    return result;
}

/* Whether bounds rise from 0 to the number of places, and every place lies inside its chunk. */
static int inside(const Rows *chunks, Py_ssize_t count, const Py_buffer *bounds, const Py_buffer *wanted) {
    const int64_t *edges = bounds->buf, *places = wanted->buf;
    if (bounds->len != 8 * (count + 1) || edges[0] || edges[count] * 8 != wanted->len)
        return 0;
    for (Py_ssize_t chunk = 0; chunk < count; chunk++) {
        if (edges[chunk] > edges[chunk + 1] || edges[chunk + 1] > edges[count])
            return 0;
        for (int64_t i = edges[chunk]; i < edges[chunk + 1]; i++)
            if (places[i] < 0 || places[i] >= chunks[chunk].count)
                return 0;
    }
    return 1;
}

/* scan(codes, scales, dim, query, coarse, fine, out, bounds, wanted, threads, level) */
static PyObject *native_scan(PyObject *self, PyObject *arguments) {
    PyObject *codes_of, *scales_of, *result = NULL;
    Arrays arrays;
    Py_buffer bounds, wanted;
    Py_ssize_t dim;
    int threads, level, done = 0;
    Buffers codes = {0}, scales = {0};
    Codes query;
    Rows *rows = NULL;
    if (!PyArg_ParseTuple(arguments, "OOny*y*y*w*y*y*ii", &codes_of, &scales_of, &dim, &arrays.codes, &arrays.coarse, &arrays.fine,
                          &arrays.out, &bounds, &wanted, &threads, &level))
        return NULL;
    if (as_codes(&arrays, dim, &query) && hold(codes_of, &codes) && hold(scales_of, &scales) &&
        (rows = as_rows(&codes, &scales, dim)) &&
        refuse(query.tokens == 1 && inside(rows, codes.count, &bounds, &wanted) && 2 * arrays.out.len == wanted.len &&
                   level <= best_level(),
               "bounds, wanted, out or level does not fit")) {
        Py_BEGIN_ALLOW_THREADS;
        done = scan_rows(rows, codes.count, bounds.buf, wanted.buf, &query, arrays.out.buf, threads, level);
        Py_END_ALLOW_THREADS;
        result = done ? Py_NewRef(Py_None) : PyErr_NoMemory();
    }
    PyMem_Free(rows);
    release(&codes);
    release(&scales);
    PyBuffer_Release(&bounds);
    PyBuffer_Release(&wanted);
    release_arrays(&arrays);
    return result;
}

static Posting *as_postings(const Buffers *lists, const Py_buffer *segments, const Py_buffer *weights) {
    if (!refuse(segments->len == 8 * lists->count && weights->len == 8 * lists->count, "a segment and a weight for each list"))
        return NULL;
    Posting *postings = PyMem_Calloc((size_t)lists->count + 1, sizeof *postings);
    if (!postings) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < lists->count; i++) {
        const int64_t segment = ((const int64_t *)segments->buf)[i];
        if (!refuse(segment >= (i ? postings[i - 1].segment : 0), "segments must ascend from 0 on")) {
            PyMem_Free(postings);
            return NULL;
        }
        postings[i] = (Posting){lists->views[i].buf, lists->views[i].len / 6, segment, ((const double *)weights->buf)[i]};
    }
    return postings;
}

/* best_postings(lists, segments, weights, allowed or None, depth, threads) -> (slots, scores), as bytes */
static PyObject *native_best_postings(PyObject *self, PyObject *arguments) {
    PyObject *lists_of, *allowed_of, *result = NULL;
    Py_buffer segments, weights, allowed = {0};
    Py_ssize_t depth;
    int threads;
    Buffers lists = {0};
    Posting *postings = NULL;
    Found found;
    if (!PyArg_ParseTuple(arguments, "Oy*y*Oni", &lists_of, &segments, &weights, &allowed_of, &depth, &threads))
        return NULL;
    if (refuse(depth > 0, "depth must be at least 1") && (allowed_of == Py_None || !PyObject_GetBuffer(allowed_of, &allowed, PyBUF_C_CONTIGUOUS)) && hold(lists_of, &lists) &&
        (postings = as_postings(&lists, &segments, &weights))) {
        int done;
        Py_BEGIN_ALLOW_THREADS;
        done = best_postings(postings, lists.count, allowed.buf, allowed.len, depth, threads, &found);
        Py_END_ALLOW_THREADS;
        result = done ? Py_BuildValue("y#y#", found.slots ? (char *)found.slots : "", 4 * (Py_ssize_t)found.count,
                                      found.scores ? (char *)found.scores : "", 4 * (Py_ssize_t)found.count)
                      : PyErr_NoMemory();
        if (done)
            free_found(&found);
    }
    PyMem_Free(postings);
    release(&lists);
    if (allowed.obj)
        PyBuffer_Release(&allowed);
    PyBuffer_Release(&segments);
    PyBuffer_Release(&weights);
    return result;
}

/* level() -> the best instruction set here: 0 portable, 1 AVX2, 2 AVX512-VNNI, 3 AMX */
static PyObject *native_level(PyObject *self, PyObject *none) { return PyLong_FromLong(best_level()); }

static PyMethodDef methods[] = {
    {"quantize", native_quantize, METH_VARARGS, NULL},
    {"best_matches", native_best_matches, METH_VARARGS, NULL},
    {"scan", native_scan, METH_VARARGS, NULL},
    {"best_postings", native_best_postings, METH_VARARGS, NULL},
    {"level", native_level, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&definition); }
