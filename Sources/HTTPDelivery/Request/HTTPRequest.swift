/// One POST.
package struct HTTPRequest: Sendable {
  /// The caller's own id for it; comes back in the completion.
  package var tag: UInt64
  /// An absolute http or https URL that passes `WebhookURL`.
  package var url: String
  /// Whole lines, `Name: value`, sent as they are and in this order.
  package var headers: [String]
  package var body: RequestBody
  /// For the whole exchange: from the name lookup to the last byte of the response.
  package var timeout: Duration

  package init(tag: UInt64, url: String, headers: [String], body: RequestBody, timeout: Duration) {
    self.tag = tag
    self.url = url
    self.headers = headers
    self.body = body
    self.timeout = timeout
  }
}
