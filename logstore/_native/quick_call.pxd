# Methods that are called once a record: the usual arguments are taken as they come.
#
# What a signature with many optional arguments is compiled to holds a reference to None for each that is left out, and lets
# go of it again. For `append` and `send` that is a good part of a call, so a function that knows the usual call stands in
# front of the method, and leaves it all others.

from cpython.object cimport PyObject


cdef extern from *:
    """
    typedef PyObject *(*ls_method)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);

    /* Puts `quick` in front of a compiled method, and gives the method; NULL, and nothing is changed, where it does not take
     * its arguments that way. */
    static ls_method ls_put_in_front(PyObject *type, const char *name, ls_method quick) {
        PyObject *found = PyDict_GetItemString(((PyTypeObject *)type)->tp_dict, name);
        if (found == NULL || !Py_IS_TYPE(found, &PyMethodDescr_Type)) return NULL;
        PyMethodDef *definition = ((PyMethodDescrObject *)found)->d_method;
        if (definition->ml_flags != (METH_FASTCALL | METH_KEYWORDS)) return NULL;
        ls_method method = (ls_method)(void (*)(void))definition->ml_meth;
        definition->ml_meth = (PyCFunction)(void (*)(void))quick;
        return method;
    }
    """
    ctypedef object (*ls_method)(object, PyObject *const *, Py_ssize_t, PyObject *)
    ls_method ls_put_in_front(object type, const char *name, ls_method quick) noexcept
