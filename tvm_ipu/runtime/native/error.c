/* Filling in the caller's error. */
#include <stdarg.h>
#include <stdio.h>

#include "internal.h"

tvm_ipu_status ipu_fail(tvm_ipu_error *error, tvm_ipu_status status, const char *hint, const char *format, ...) {
  if (error) {
    va_list values;
    va_start(values, format);
    vsnprintf(error->message, sizeof error->message, format, values);
    va_end(values);
    snprintf(error->hint, sizeof error->hint, "%s", hint);
    error->status = status;
  }
  return status;
}
