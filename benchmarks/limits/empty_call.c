/* Compiled calls that take what append takes, or give what a reader gives, and do nothing else: what Python itself
 * costs per record. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <structmember.h>

/* append(value, key) and send(topic, value, key): arguments are looked at, the call is counted. */

typedef struct {
    PyObject_HEAD
    long long calls;
} Nothing;

static PyObject *nothing_append(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names) {
    (void)names;
    if (count < 2 || count > 3 || !PyBytes_Check(arguments[count - 2]) || !PyBytes_Check(arguments[count - 1])) {
        PyErr_SetString(PyExc_TypeError, "append([topic, ]value, key) takes bytes objects");
        return NULL;
    }
    return PyLong_FromLongLong(((Nothing *)self)->calls++);
}

static PyMethodDef nothing_methods[] = {
    {"append", (PyCFunction)(void (*)(void))nothing_append, METH_FASTCALL | METH_KEYWORDS, "Count the call."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot nothing_slots[] = {{Py_tp_methods, nothing_methods}, {0, NULL}};
static PyType_Spec nothing_spec = {
    .name = "empty_call.Nothing",
    .basicsize = sizeof(Nothing),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = nothing_slots,
};

/* pairs(data, key_bytes, value_bytes): an iterator of objects with key and value. Each pair and its two bytes objects are
 * new ones, from Python's allocator, as those of a record that a program may keep have to be; the attributes are plain
 * members, which the interpreter reads without a call. */

typedef struct {
    PyObject_HEAD
    PyObject *key, *value;
} Pair;

static void pair_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Pair *)self)->key);
    Py_XDECREF(((Pair *)self)->value);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyMemberDef pair_members[] = {
    {"key", T_OBJECT_EX, offsetof(Pair, key), READONLY, NULL},
    {"value", T_OBJECT_EX, offsetof(Pair, value), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot pair_slots[] = {{Py_tp_dealloc, pair_dealloc}, {Py_tp_members, pair_members}, {0, NULL}};
static PyType_Spec pair_spec = {
    .name = "empty_call.Pair",
    .basicsize = sizeof(Pair),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pair_slots,
};

typedef struct {
    PyObject_HEAD
    PyTypeObject *pair_type;
    PyObject *data;
    Py_ssize_t at, key_bytes, value_bytes;
} Pairs;

static void pairs_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(((Pairs *)self)->data);
    Py_XDECREF(((Pairs *)self)->pair_type);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *pairs_next(PyObject *self) {
    Pairs *pairs = (Pairs *)self;
    Py_ssize_t size = pairs->key_bytes + pairs->value_bytes;
    if (PyBytes_GET_SIZE(pairs->data) - pairs->at < size) {
        return NULL;
    }
    Pair *pair = PyObject_New(Pair, pairs->pair_type);
    if (pair == NULL) {
        return NULL;
    }
    const char *bytes = PyBytes_AS_STRING(pairs->data) + pairs->at;
    pair->key = PyBytes_FromStringAndSize(bytes, pairs->key_bytes);
    pair->value = PyBytes_FromStringAndSize(bytes + pairs->key_bytes, pairs->value_bytes);
    if (pair->key == NULL || pair->value == NULL) {
        Py_DECREF(pair);
        return NULL;
    }
    pairs->at += size;
    return (PyObject *)pair;
}

static PyType_Slot pairs_slots[] = {
    {Py_tp_dealloc, pairs_dealloc}, {Py_tp_iter, PyObject_SelfIter}, {Py_tp_iternext, pairs_next}, {0, NULL}};
static PyType_Spec pairs_spec = {
    .name = "empty_call.Pairs",
    .basicsize = sizeof(Pairs),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pairs_slots,
};

static PyObject *make_pairs(PyObject *module, PyObject *arguments) {
    PyObject *data;
    Py_ssize_t key_bytes, value_bytes;
    if (!PyArg_ParseTuple(arguments, "Snn", &data, &key_bytes, &value_bytes)) {
        return NULL;
    }
    if (key_bytes < 0 || value_bytes < 0 || key_bytes + value_bytes == 0) {
        PyErr_SetString(PyExc_ValueError, "a pair needs at least one byte");
        return NULL;
    }
    PyObject *pairs_type = PyObject_GetAttrString(module, "Pairs");
    PyObject *pair_type = PyObject_GetAttrString(module, "Pair");
    Pairs *pairs = NULL;
    if (pairs_type != NULL && pair_type != NULL) {
        pairs = PyObject_New(Pairs, (PyTypeObject *)pairs_type);
    }
    if (pairs != NULL) {
        pairs->pair_type = (PyTypeObject *)Py_NewRef(pair_type);
        pairs->data = Py_NewRef(data);
        pairs->at = 0;
        pairs->key_bytes = key_bytes;
        pairs->value_bytes = value_bytes;
    }
    Py_XDECREF(pairs_type);
    Py_XDECREF(pair_type);
    return (PyObject *)pairs;
}

static PyMethodDef module_methods[] = {
    {"pairs", make_pairs, METH_VARARGS, "Iterate over keys and values that follow each other in data."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "empty_call", NULL, -1, module_methods, NULL, NULL, NULL, NULL,
};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec) {
    PyObject *type = PyType_FromSpec(spec);
    if (type == NULL) {
        return -1;
    }
    int status = PyModule_AddObjectRef(module, name, type);
    Py_DECREF(type);
    return status;
}

PyMODINIT_FUNC PyInit_empty_call(void) {
    PyObject *module = PyModule_Create(&module_definition);
    if (module == NULL) {
        return NULL;
    }
    if (add_type(module, "Nothing", &nothing_spec) < 0 || add_type(module, "Pair", &pair_spec) < 0 ||
        add_type(module, "Pairs", &pairs_spec) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
