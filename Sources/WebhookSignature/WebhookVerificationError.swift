/// Why a webhook was not accepted. Safe to show and to log: it carries neither keys nor anything the sender wrote,
/// except for ages in seconds.
public enum WebhookVerificationError: Error, Hashable, Sendable {
  /// The header `name` is absent or empty.
  case missingHeader(name: String)
  /// The header `name` came more than once, and different parts of a receiver might read different ones.
  case duplicateHeader(name: String)
  /// The header `name` is longer than `limitBytes`.
  case headerTooLong(name: String, limitBytes: Int)
  /// The id contains a full stop, which would make the signed content ambiguous.
  case malformedID
  /// The timestamp is not a plain decimal integer of seconds.
  case malformedTimestamp
  /// The timestamp lies further in the past than the tolerance. Late, or a replay.
  case timestampTooOld(ageSeconds: Int)
  /// The timestamp lies further in the future than the tolerance. One of the clocks is wrong.
  case timestampTooNew(aheadSeconds: Int)
  /// The header holds more signatures than a rotation can need.
  case tooManySignatures(limit: Int)
  /// No signature is of a version that the verifier's keys can check.
  case noSupportedSignature
  /// Signatures of a supported version are there, but none was made with these keys over this content.
  case noMatchingSignature
}

extension WebhookVerificationError: CustomStringConvertible {
  public var description: String {
    switch self {
    case .missingHeader(let name): "header \(name) is missing"
    case .duplicateHeader(let name): "header \(name) appears more than once"
    case .headerTooLong(let name, let limit): "header \(name) is longer than \(limit) bytes"
    case .malformedID: "header \(WebhookHeader.id) contains a full stop"
    case .malformedTimestamp: "header \(WebhookHeader.timestamp) is not a whole number of seconds"
    case .timestampTooOld(let seconds): "timestamp is \(seconds) s old, more than the tolerance"
    case .timestampTooNew(let seconds): "timestamp is \(seconds) s in the future, more than the tolerance"
    case .tooManySignatures(let limit): "more than \(limit) signatures"
    case .noSupportedSignature: "no signature of a version that the configured keys can check"
    case .noMatchingSignature: "no signature matches: another secret, or a changed body"
    }
  }
}
