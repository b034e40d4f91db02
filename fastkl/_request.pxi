# Requests and kinds of dtypes, included by _kernels.pyx. They know nothing of blocks and threads.

cdef class Kind:
    """What a dtype means for a row: the core's code, how far from 1 the sum may be, the dtype of the result."""
    cdef readonly int code
    cdef readonly double tolerance
    cdef readonly object result
    cdef int number  # NumPy's, of the result's dtype

    def __init__(self, str name, double epsilon):
        self.code, self.tolerance = _codes[name], sqrt(epsilon)
        self.result = _FLOAT32 if fastkl_is_single(self.code) else _FLOAT64
        self.number = self.result.num


cdef dict _codes = {fastkl_dtype_names[i].decode(): i for i in range(FASTKL_DTYPE_COUNT)}
cdef object _FLOAT32 = np.dtype(np.float32), _FLOAT64 = np.dtype(np.float64)
# NumPy has two type numbers for some dtypes: int64 can be long and long long.
cdef dict _kinds = {
    dtype.num: Kind(dtype.name, np.finfo(dtype if dtype.kind == "f" else np.float64).eps)
    for dtype in map(np.dtype, "?bBhHiIlLqQefd")
}
BFLOAT16_KIND = Kind("bfloat16", 2.0 ** -7)


cpdef Kind kind_of(cnp.ndarray array):
    """The Kind of the array's dtype, None if it is not one of NumPy's that the core reads."""
    return _kinds.get(cnp.PyArray_TYPE(array))


cdef class Stop:
    """A switch that ends calls of other threads early, once it is set. Their results are then incomplete."""
    cdef int word

    def set(self):
        """Have all calls with this switch end."""
        fastkl_set(&self.word)

    def is_set(self):
        """Whether it was set."""
        return bool(fastkl_get(&self.word))


# Which function of a tier computes. ROWS become LOGITS where an operand holds logits.
cdef enum Task:
    ROWS, LOGITS, NLL, COMPARE

# What is computed by the name of a request: a measure of the core, or its square root, by which function.
cdef dict _tasks = {name: (code, bool(fastkl_has_root(code)), ROWS) for name, code in MEASURES.items()}
_tasks["js_distance"] = (FASTKL_js_divergence, True, ROWS)
_tasks["rel_entr_sum"] = (FASTKL_generalized_kl, False, ROWS)  # without the sum of q - p
_tasks["kl_div_sum"] = _tasks["generalized_kl"]
_tasks["nll"] = (FASTKL_cross_entropy, False, NLL)
_tasks["compare"] = (FASTKL_kl_divergence, False, COMPARE)


cdef class Request:
    """The arguments of one call as the user gave them, and beside them the numbers that call.py makes of those it checks.

    The `set_` methods know the defaults and the values that need no check; `plain` says that there are no others.
    """
    cdef readonly str measure
    cdef readonly object p, q, labels
    cdef readonly object axis, normalize, invalid, base, eps, threads, from_logits, temperature
    cdef readonly object ignore_index, label_smoothing, out, keepdims, alpha
    cdef readonly bint plain
    # What the kernels compute with.
    cdef public bint any_sum, p_logits, q_logits, ignores
    cdef public double log_base, clip, scale, scale_low, smoothing, order
    cdef public int64_t ignored
    cdef public int most_threads
    cdef public Stop stop
    cdef int code, task
    cdef bint root
    cdef bint as_scipy  # Any entries are valid.
    # Views of the operands with the distribution axis last, whose leading axes broadcast, and what their dtypes mean.
    cdef cnp.ndarray p_rows, q_rows, label_rows
    cdef Kind p_kind, q_kind, label_kind

    def __cinit__(self, str measure, p=None, q=None, labels=None):
        self.measure, self.p, self.q, self.labels = measure, p, q, labels
        self.axis, self.normalize, self.invalid = -1, False, "raise"
        self.base, self.eps, self.threads, self.from_logits, self.temperature = None, 0.0, None, False, 1.0
        self.ignore_index, self.label_smoothing, self.out, self.keepdims = None, 0.0, None, False
        self.plain, self.scale = True, 1
        self.alpha, self.order = None, measure != "rel_entr_sum"
        self.as_scipy = measure == "rel_entr_sum" or measure == "kl_div_sum"
        self.code, self.root, self.task = _tasks[measure]

    def set_rows(self, axis, normalize, invalid):
        """Which axis holds the distributions, and which rows are valid."""
        self.axis, self.normalize, self.invalid = axis, normalize, invalid
        self.any_sum = normalize is True
        if axis is not _LAST or (normalize is not True and normalize is not False) or invalid is not _RAISE:
            self.plain = False

    def set_numbers(self, base, eps, threads):
        """The base of the logarithm, what q is clipped to, the most threads."""
        self.base, self.eps, self.threads = base, eps, threads
        self.clip = eps if type(eps) is float else NAN
        # A caller who flushes subnormal numbers has any small eps compare equal to 0, but none with another sign.
        self.plain &= 0 <= self.clip < 1 and not signbit(self.clip)
        if base is not None:
            self.log_base = base if type(base) is float or (type(base) is int and 1 < base < INT_MAX) else NAN
            self.plain &= 1 < self.log_base < INFINITY
        if threads is not None:
            self.most_threads = min(threads, MOST_THREADS) if type(threads) is int and threads > 0 else 0
            self.plain &= self.most_threads > 0

    def set_logits(self, from_logits, temperature):
        """Which operands hold logits, and what divides them."""
        self.from_logits, self.temperature = from_logits, temperature
        self.p_logits = self.q_logits = from_logits is True
        cdef bint flag = from_logits is True or from_logits is False
        if not flag or type(temperature) is not float or <double>temperature != 1:
            self.plain = False

    def set_alpha(self, alpha):
        """The order of a Rényi divergence. That of order 1 is D."""
        self.alpha = alpha
        if alpha is not None:
            self.order = alpha if type(alpha) is float or (type(alpha) is int and 0 < alpha < INT_MAX) else NAN
            self.plain &= self.order > 0
            self.code = FASTKL_kl_divergence if self.order == 1 else FASTKL_renyi_divergence

    def set_labels(self, ignore_index, label_smoothing):
        """The label whose rows give 0, and the share of the mean of all losses."""
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing
        if ignore_index is not None or type(label_smoothing) is not float or <double>label_smoothing != 0:
            self.plain = False

    def set_result(self, out, keepdims):
        """Where the result goes, and whether it keeps the axis."""
        self.out, self.keepdims = out, keepdims
        if out is not None or keepdims is not False:
            self.plain = False

    def align(self, dict rows):
        """The aligned operands by their names, each an array and its Kind."""
        self.p_rows, self.p_kind = rows.get("p", _ABSENT)
        self.q_rows, self.q_kind = rows.get("q", _ABSENT)
        self.label_rows, self.label_kind = rows.get("labels", _ABSENT)

    def only_numpy(self):
        """Whether no operand is of another type than numpy.ndarray."""
        cdef type array = <type>cnp.ndarray
        return ((self.p is None or type(self.p) is array) and (self.q is None or type(self.q) is array)
                and (self.labels is None or type(self.labels) is array))

    def replace(self, **changes):
        """A copy with other arguments."""
        cdef dict a = {name: getattr(self, name) for name in _ARGUMENTS}
        if not a.keys() >= changes.keys():
            raise TypeError(f"a Request has no {', '.join(changes.keys() - a.keys())}")
        a.update(changes)
        new = Request(a["measure"], a["p"], a["q"], a["labels"])
        new.set_rows(a["axis"], a["normalize"], a["invalid"])
        new.set_numbers(a["base"], a["eps"], a["threads"])
        new.set_logits(a["from_logits"], a["temperature"])
        new.set_labels(a["ignore_index"], a["label_smoothing"])
        new.set_result(a["out"], a["keepdims"])
        new.set_alpha(a["alpha"])
        return new

    def __reduce__(self):
        return _restored, tuple([getattr(self, name) for name in _ARGUMENTS])


def _restored(*arguments):
    """A Request from its pickle: dask sends requests to other processes."""
    return Request(arguments[0]).replace(**dict(zip(_ARGUMENTS, arguments)))


cdef object _LAST = -1, _RAISE = "raise"
cdef tuple _ABSENT = (None, None)
cdef tuple _ARGUMENTS = (
    "measure", "p", "q", "labels", "axis", "normalize", "invalid", "base", "eps", "threads", "from_logits", "temperature",
    "ignore_index", "label_smoothing", "out", "keepdims", "alpha",
)
