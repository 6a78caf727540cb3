#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

extension WebhookVerifier {
  /// The same, finding the three headers by name, in any case, among all of a request's headers.
  ///
  /// - Throws: as ``verify(id:timestamp:signature:body:now:)``, and ``WebhookVerificationError/duplicateHeader(name:)``
  ///   if one of the three came more than once.
  public func verify(
    headers: [(name: String, value: String)],
    body: some Collection<UInt8>,
    now: Date = Date()
  ) throws(WebhookVerificationError) {
    try verify(
      id: Self.value(of: WebhookHeader.id, in: headers),
      timestamp: Self.value(of: WebhookHeader.timestamp, in: headers),
      signature: Self.value(of: WebhookHeader.signature, in: headers),
      body: body,
      now: now
    )
  }

  /// The same for headers in a dictionary, whose keys may be in any case.
  public func verify(
    headers: [String: String],
    body: some Collection<UInt8>,
    now: Date = Date()
  ) throws(WebhookVerificationError) {
    try verify(headers: headers.map { (name: $0.key, value: $0.value) }, body: body, now: now)
  }

  private static func value(
    of name: String,
    in headers: [(name: String, value: String)]
  ) throws(WebhookVerificationError) -> String? {
    var found: String?
    for header in headers where header.name.utf8.count == name.utf8.count && header.name.lowercased() == name {
      guard found == nil else { throw .duplicateHeader(name: name) }
      found = header.value
    }
    return found
  }
}
