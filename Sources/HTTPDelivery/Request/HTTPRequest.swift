/// One POST.
package struct HTTPRequest: Sendable {
  /// The caller's own id for it; comes back in the completion.
  package var tag: UInt64
  /// An absolute http or https URL that passes `WebhookURL`.
  package var url: String
  /// Whole lines, `Name: value`, sent as they are and in this order. `Content-Type` is one of them: without it the
  /// request goes out without one.
  package var headers: [String]
  package var body: RequestBody
  /// For the whole exchange: from the name lookup to the last byte of the response.
  package var timeout: Duration
  /// Proves to the server who is asking (mutual TLS). A connection serves one identity only.
  package var clientIdentity: ClientIdentity?
  /// Bytes of a 2xx answer's body to keep, at most the engine's `responseLimitBytes`. A delivery needs none of them.
  package var keptBodyBytes: Int

  package init(
    tag: UInt64,
    url: String,
    headers: [String],
    body: RequestBody,
    timeout: Duration,
    clientIdentity: ClientIdentity? = nil,
    keptBodyBytes: Int = 0
  ) {
    self.tag = tag
    self.url = url
    self.headers = headers
    self.body = body
    self.timeout = timeout
    self.clientIdentity = clientIdentity
    self.keptBodyBytes = keptBodyBytes
  }
}
