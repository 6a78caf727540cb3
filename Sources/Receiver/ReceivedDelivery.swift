import Foundation

/// One request that reached the receiver, read whole and checked.
package struct ReceivedDelivery: Sendable {
  package enum Verification: Hashable, Sendable {
    /// Signed with one of the receiver's secrets, and fresh.
    case verified
    /// Carries a signature, but the receiver was given no secret to check it with.
    case unchecked
    /// Carries no signature.
    case unsigned
    /// Carries a signature that does not hold; the reason is safe to show.
    case invalid(reason: String)
  }

  /// The request target as it came: percent-encoded path and query.
  package var path: String
  /// The `webhook-id` header, nil if absent.
  package var webhookID: String?
  /// The `webhook-timestamp` header in seconds since 1970-01-01 UTC, nil if absent or not a number.
  package var timestamp: Int?
  /// All headers, in no particular order. Of a header that came several times, the last.
  package var headers: [(name: String, value: String)]
  /// The body, byte for byte as it came.
  package var body: [UInt8]
  package var verification: Verification
  /// When the body had been read, to measure durations with.
  package var receivedAt: ContinuousClock.Instant
  /// When the body had been read, to show to people.
  package var receivedAtDate: Date

  /// The value of a header, whose name is given in lower case and found in any.
  package func header(_ name: String) -> String? {
    headers.first { $0.name.lowercased() == name }?.value
  }
}
