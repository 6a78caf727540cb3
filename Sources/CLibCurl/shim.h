// libcurl's setters and getters are variadic, which Swift cannot call: one typed door for each kind of argument.
#ifndef MARTLET_CLIBCURL_SHIM_H
#define MARTLET_CLIBCURL_SHIM_H

// Swift's Glibc module first: the system's headers that it holds are then its own, and a file that imports Glibc alone
// finds `SOCK_STREAM` whichever of the two modules the compiler happens to load first.
#pragma clang module import SwiftGlibc

// The type-checking macros would wrap the calls below in statement expressions that deprecation warnings leak out of.
#define CURL_DISABLE_TYPECHECK 1
#include <curl/curl.h>

// The loop that drives libcurl waits with these, which Swift's Glibc module leaves out.
#include <sys/epoll.h>
#include <sys/eventfd.h>

static inline CURLcode curl_shim_set_long(CURL *easy, CURLoption option, long value) {
  return curl_easy_setopt(easy, option, value);
}

static inline CURLcode curl_shim_set_offset(CURL *easy, CURLoption option, curl_off_t value) {
  return curl_easy_setopt(easy, option, value);
}

static inline CURLcode curl_shim_set_string(CURL *easy, CURLoption option, const char *value) {
  return curl_easy_setopt(easy, option, value);
}

static inline CURLcode curl_shim_set_pointer(CURL *easy, CURLoption option, const void *value) {
  return curl_easy_setopt(easy, option, value);
}

// libcurl takes a copy; a null pointer takes the option back.
static inline CURLcode curl_shim_set_blob(CURL *easy, CURLoption option, const void *bytes, size_t count) {
  struct curl_blob blob = {.data = (void *)bytes, .len = count, .flags = CURL_BLOB_COPY};
  return curl_easy_setopt(easy, option, bytes ? &blob : NULL);
}

// For CURLOPT_WRITEFUNCTION and CURLOPT_HEADERFUNCTION, which share a shape.
static inline CURLcode curl_shim_set_write_callback(CURL *easy, CURLoption option, curl_write_callback callback) {
  return curl_easy_setopt(easy, option, callback);
}

static inline CURLcode curl_shim_set_open_socket_callback(CURL *easy, curl_opensocket_callback callback) {
  return curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, callback);
}

static inline CURLcode curl_shim_set_before_request_callback(CURL *easy, curl_prereq_callback callback) {
  return curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, callback);
}

static inline CURLcode curl_shim_set_progress_callback(CURL *easy, curl_xferinfo_callback callback) {
  return curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, callback);
}

static inline CURLcode curl_shim_set_close_socket_callback(CURL *easy, curl_closesocket_callback callback) {
  return curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, callback);
}

static inline CURLcode curl_shim_get_long(CURL *easy, CURLINFO info, long *value) {
  return curl_easy_getinfo(easy, info, value);
}

static inline CURLcode curl_shim_get_offset(CURL *easy, CURLINFO info, curl_off_t *value) {
  return curl_easy_getinfo(easy, info, value);
}

static inline CURLcode curl_shim_get_pointer(CURL *easy, CURLINFO info, void **value) {
  return curl_easy_getinfo(easy, info, value);
}

static inline CURLMcode curl_shim_multi_set_long(CURLM *multi, CURLMoption option, long value) {
  return curl_multi_setopt(multi, option, value);
}

static inline CURLMcode curl_shim_multi_set_callbacks(CURLM *multi, curl_socket_callback on_socket,
                                                      curl_multi_timer_callback on_timer, void *context) {
  curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, context);
  curl_multi_setopt(multi, CURLMOPT_TIMERDATA, context);
  curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
  return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
}

// `struct curl_sockaddr` ends in a generic sockaddr that is really as long as `addrlen` says; taking its address in C
// keeps Swift from copying only the first sixteen bytes.
static inline const struct sockaddr *curl_shim_address(const struct curl_sockaddr *address) {
  return &address->addr;
}

#endif
