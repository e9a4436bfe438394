/* A compiled call that takes what append takes and does nothing: what Python itself costs per record. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

typedef struct {
    PyObject_HEAD
    long long calls;
} Nothing;

static PyObject *nothing_append(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names) {
    (void)names;
    if (count != 2 || !PyBytes_Check(arguments[0]) || !PyBytes_Check(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "append(value, key) takes two bytes objects");
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

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, "empty_call", NULL, -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_empty_call(void) {
    PyObject *module = PyModule_Create(&module_definition);
    PyObject *type = PyType_FromSpec(&nothing_spec);
    if (module == NULL || type == NULL || PyModule_AddObject(module, "Nothing", type) < 0) {
        Py_XDECREF(module);
        Py_XDECREF(type);
        return NULL;
    }
    return module;
}
