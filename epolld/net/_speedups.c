/* The way of a message through a transport, in C: what net/speedups.py puts in place of it.
 *
 * `on_ready` and `write` do what the methods of Transport do, `settle_all` and `accept` what the
 * functions of transport.py and descriptor.py do. What is not the usual case is left to the Python
 * code before anything has been done, and so is all that follows from an error or from the peer's
 * end. So the Python code is what to read; this is the same without the interpreter.
 *
 * The objects are those of the Python code as well. Their __slots__ lie at offsets that the member
 * descriptors of their classes know; `bind` looks them up, once.
 *
 * The descriptors are non-blocking, so no call waits and the GIL is kept.
 */

#define _GNU_SOURCE /* accept4 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Bytes taken in one turn: READ_SIZE of transport.py, where it is explained. */
#define READ_SIZE 65536

/* The types, and where in their objects each slot lies. */
static PyTypeObject *transport_type, *loop_type;
static Py_ssize_t fd_at, loop_at, protocol_at, reading_at, unsent_at;
static Py_ssize_t bytes_in_at, bytes_out_at, last_active_at;
static Py_ssize_t now_at, senders_at;

/* The Python code, for all that is unusual; and travel.py's value of _unsent. */
static PyObject *python_on_ready, *python_write, *nothing;

static PyObject *name_data_received, *name_fault, *name_break, *name_on_eof, *name_keep;

/* A slot, as an lvalue: a borrowed reference, NULL while it is not set. */
#define SLOT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

static void
set(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject *old = SLOT(object, offset);
    SLOT(object, offset) = Py_NewRef(value);
    Py_XDECREF(old);
}

/* object.slot += count */
static int
add(PyObject *object, Py_ssize_t offset, Py_ssize_t count)
{
    PyObject *number = PyLong_FromSsize_t(count);
    if (number == NULL) {
        return -1;
    }
    PyObject *sum = PyNumber_Add(SLOT(object, offset), number);
    Py_DECREF(number);
    if (sum == NULL) {
        return -1;
    }
    Py_SETREF(SLOT(object, offset), sum);
    return 0;
}

/* The transport's loop, borrowed; NULL if it is not ours (a test's), or the transport not whole. */
static PyObject *
loop_of(PyObject *transport)
{
    PyObject *loop = SLOT(transport, loop_at);
    if (loop == NULL || !PyObject_TypeCheck(loop, loop_type)
        || SLOT(loop, now_at) == NULL || SLOT(loop, senders_at) == NULL
        || SLOT(transport, protocol_at) == NULL || SLOT(transport, fd_at) == NULL
        || SLOT(transport, bytes_in_at) == NULL || SLOT(transport, bytes_out_at) == NULL) {
        return NULL;
    }
    return loop;
}

/* The exception that is set, taken from where it is set. */
static PyObject *
take_exception(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* transport._break(OSError(errno)) */
static PyObject *
break_by_errno(PyObject *transport)
{
    PyErr_SetFromErrno(PyExc_OSError);
    PyObject *exception = take_exception();
    PyObject *result = PyObject_CallMethodOneArg(transport, name_break, exception);
    Py_DECREF(exception);
    return result;
}

static PyObject *
on_ready(PyObject *self, PyObject *events)
{
    static char buffer[READ_SIZE]; /* used by one at a time: no call in between gives up the GIL */
    PyObject *loop = loop_of(self);
    if (loop == NULL || SLOT(self, reading_at) != Py_True || !PyLong_CheckExact(events)
        || PyLong_AsLong(events) != EPOLLIN) {
        PyErr_Clear(); /* a number that is no C long is not EPOLLIN either */
        PyObject *arguments[] = {self, events};
        return PyObject_Vectorcall(python_on_ready, arguments, 2, NULL);
    }
    int fd = PyObject_AsFileDescriptor(SLOT(self, fd_at));
    if (fd < 0) {
        return NULL;
    }
    ssize_t size;
    while ((size = read(fd, buffer, READ_SIZE)) < 0 && errno == EINTR) {
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    }
    if (size < 0) {
        if (errno == EAGAIN) {
            Py_RETURN_NONE;
        }
        return break_by_errno(self);
    }
    if (size == 0) {
        return PyObject_CallMethodNoArgs(self, name_on_eof);
    }
    PyObject *data = PyBytes_FromStringAndSize(buffer, size);
    if (data == NULL) {
        return NULL;
    }
    set(self, last_active_at, SLOT(loop, now_at));
    if (add(self, bytes_in_at, size) < 0) {
        Py_DECREF(data);
        return NULL;
    }
    PyObject *protocol = Py_NewRef(SLOT(self, protocol_at)); /* it may have another put in place */
    PyObject *arguments[] = {protocol, data};
    PyObject *result = PyObject_VectorcallMethod(
        name_data_received, arguments, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(protocol);
    Py_DECREF(data);
    if (result == NULL) {
        PyObject *exception = take_exception();
        result = PyObject_CallMethodObjArgs(self, name_fault, name_data_received, exception, NULL);
        Py_DECREF(exception);
        return result;
    }
    Py_DECREF(result);
    Py_RETURN_NONE;
}

/* Send what was written: one turn of the loop in settle_all. */
static int
settle(PyObject *transport, PyObject *loop)
{
    Py_buffer view;
    PyObject *unsent = SLOT(transport, unsent_at);
    if (unsent == NULL || unsent == Py_None || unsent == nothing) {
        return 0; /* settled before, because something had to follow it */
    }
    Py_INCREF(unsent);
    if (PyObject_GetBuffer(unsent, &view, PyBUF_SIMPLE) < 0) {
        Py_DECREF(unsent);
        return -1;
    }
    PyObject *result = NULL;
    ssize_t sent = 0;
    int fd = PyObject_AsFileDescriptor(SLOT(transport, fd_at));
    if (fd < 0) {
        goto done;
    }
    while (view.len > 0 && (sent = write(fd, view.buf, view.len)) < 0 && errno == EINTR) {
        if (PyErr_CheckSignals() < 0) {
            goto done;
        }
    }
    if (sent < 0 && errno != EAGAIN) {
        set(transport, unsent_at, Py_None);
        result = break_by_errno(transport);
        goto done;
    }
    sent = sent < 0 ? 0 : sent;
    if (add(transport, bytes_out_at, sent) < 0) {
        goto done;
    }
    set(transport, last_active_at, SLOT(loop, now_at));
    if (sent == view.len) {
        set(transport, unsent_at, nothing);
        result = Py_NewRef(Py_None);
    }
    else {
        PyObject *whole = PyMemoryView_FromObject(unsent);
        PyObject *rest = whole ? PySequence_GetSlice(whole, sent, view.len) : NULL;
        result = rest ? PyObject_CallMethodOneArg(transport, name_keep, rest) : NULL;
        Py_XDECREF(rest);
        Py_XDECREF(whole);
    }
done:
    PyBuffer_Release(&view);
    Py_DECREF(unsent);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static PyObject *
write_(PyObject *self, PyObject *data)
{
    PyObject *loop = loop_of(self);
    if (loop == NULL || SLOT(self, unsent_at) != nothing || !PyBytes_CheckExact(data)
        || PyBytes_GET_SIZE(data) == 0) {
        PyObject *arguments[] = {self, data};
        return PyObject_Vectorcall(python_write, arguments, 2, NULL);
    }
    PyObject *senders = SLOT(loop, senders_at);
    set(self, unsent_at, data);
    if (senders == Py_None ? settle(self, loop) < 0 : PyList_Append(senders, self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
settle_all(PyObject *module, PyObject *transports)
{
    PyObject *transport, *iterator = PyObject_GetIter(transports);
    if (iterator == NULL) {
        return NULL;
    }
    while ((transport = PyIter_Next(iterator)) != NULL) {
        PyObject *loop;
        int result = -1;
        if (!PyObject_TypeCheck(transport, transport_type) || (loop = loop_of(transport)) == NULL) {
            PyErr_Format(PyExc_TypeError, "not a transport of this loop: %R", transport);
        }
        else {
            result = settle(transport, loop);
        }
        Py_DECREF(transport);
        if (result < 0) {
            break;
        }
    }
    Py_DECREF(iterator);
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* An address as descriptor.pack_peer makes it; None if it is none of IP's or a Unix socket's. */
static PyObject *
pack_peer(const struct sockaddr_storage *address, socklen_t size)
{
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *ip = (const struct sockaddr_in *)address;
        unsigned long long number = ntohl(ip->sin_addr.s_addr);
        return PyLong_FromUnsignedLongLong(number << 16 | ntohs(ip->sin_port));
    }
    if (address->ss_family == AF_INET6) {
        const struct sockaddr_in6 *ip = (const struct sockaddr_in6 *)address;
        char host[INET6_ADDRSTRLEN];
        inet_ntop(AF_INET6, &ip->sin6_addr, host, sizeof host);
        return Py_BuildValue("siIk", host, ntohs(ip->sin6_port), ntohl(ip->sin6_flowinfo),
                             (unsigned long)ip->sin6_scope_id);
    }
    if (address->ss_family == AF_UNIX) {
        const char *path = ((const struct sockaddr_un *)address)->sun_path;
        size_t length = size - offsetof(struct sockaddr_un, sun_path);
        if (length > 0 && path[0] == '\0') {
            return PyBytes_FromStringAndSize(path, length); /* abstract */
        }
        return PyUnicode_DecodeFSDefaultAndSize(path, strnlen(path, length));
    }
    Py_RETURN_NONE;
}

static PyObject *
accept_(PyObject *module, PyObject *listener)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;
    int connection, fd = PyObject_AsFileDescriptor(listener);
    if (fd < 0) {
        return NULL;
    }
    while ((connection = accept4(fd, (struct sockaddr *)&address, &size,
                                 SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0 && errno == EINTR) {
        if (PyErr_CheckSignals() < 0) {
            return NULL;
        }
    }
    if (connection < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *result = Py_BuildValue("iN", connection, pack_peer(&address, size));
    if (result == NULL) {
        close(connection);
    }
    return result;
}

/* Where slot `name` lies in objects of `type`. */
static int
look_up(PyTypeObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *member = PyObject_GetAttrString((PyObject *)type, name);
    if (member == NULL) {
        return -1;
    }
    int found = Py_IS_TYPE(member, &PyMemberDescr_Type)
                && ((PyMemberDescrObject *)member)->d_member->type == T_OBJECT_EX;
    if (found) {
        *offset = ((PyMemberDescrObject *)member)->d_member->offset;
    }
    else {
        PyErr_Format(PyExc_TypeError, "%s.%s is not a slot", type->tp_name, name);
    }
    Py_DECREF(member);
    return found ? 0 : -1;
}

static PyMethodDef method_on_ready = {
    "on_ready", on_ready, METH_O, PyDoc_STR("As Transport.on_ready.")};
static PyMethodDef method_write = {"write", write_, METH_O, PyDoc_STR("As Transport.write.")};

static int
add_method(PyObject *type, PyMethodDef *method)
{
    PyObject *descriptor = PyDescr_NewMethod((PyTypeObject *)type, method);
    if (descriptor == NULL) {
        return -1;
    }
    int result = PyObject_SetAttrString(type, method->ml_name, descriptor);
    Py_DECREF(descriptor);
    return result;
}

PyDoc_STRVAR(bind_doc, "bind(compiled, transport, loop, nothing)\n\n"
"Give class `compiled` the methods `on_ready` and `write` in C, in place of those of its base\n"
"`transport`; to be called once, before all else. `loop` is the class of event loops, `nothing`\n"
"the constant of travel.py. Raises TypeError if a slot is missing.");

static PyObject *
bind_(PyObject *module, PyObject *arguments)
{
    PyObject *compiled;
    if (!PyArg_ParseTuple(arguments, "O!O!O!O", &PyType_Type, &compiled, &PyType_Type,
                          &transport_type, &PyType_Type, &loop_type, &nothing)) {
        return NULL;
    }
    Py_INCREF(transport_type);
    Py_INCREF(loop_type);
    Py_INCREF(nothing);
    python_on_ready = PyObject_GetAttrString((PyObject *)transport_type, "on_ready");
    python_write = PyObject_GetAttrString((PyObject *)transport_type, "write");
    name_data_received = PyUnicode_InternFromString("data_received");
    name_fault = PyUnicode_InternFromString("_fault");
    name_break = PyUnicode_InternFromString("_break");
    name_on_eof = PyUnicode_InternFromString("_on_eof");
    name_keep = PyUnicode_InternFromString("_keep");
    if (python_on_ready == NULL || python_write == NULL || name_data_received == NULL
        || name_fault == NULL || name_break == NULL || name_on_eof == NULL || name_keep == NULL
        || look_up(transport_type, "_fd", &fd_at) < 0
        || look_up(transport_type, "_loop", &loop_at) < 0
        || look_up(transport_type, "_protocol", &protocol_at) < 0
        || look_up(transport_type, "_reading", &reading_at) < 0
        || look_up(transport_type, "_unsent", &unsent_at) < 0
        || look_up(transport_type, "bytes_in", &bytes_in_at) < 0
        || look_up(transport_type, "bytes_out", &bytes_out_at) < 0
        || look_up(transport_type, "last_active", &last_active_at) < 0
        || look_up(loop_type, "now", &now_at) < 0
        || look_up(loop_type, "senders", &senders_at) < 0
        || add_method(compiled, &method_on_ready) < 0 || add_method(compiled, &method_write) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"bind", bind_, METH_VARARGS, bind_doc},
    {"accept", accept_, METH_O, PyDoc_STR("As accept of descriptor.py.")},
    {"settle_all", settle_all, METH_O, PyDoc_STR("As settle_all of transport.py.")},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "_speedups",
    .m_doc = PyDoc_STR("The hot path of transport.py in C; see speedups.py."),
    .m_size = -1, /* its state is static: one interpreter a process */
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModule_Create(&definition);
}
