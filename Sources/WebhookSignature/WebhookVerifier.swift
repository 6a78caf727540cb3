import Crypto

#if canImport(FoundationEssentials)
  import FoundationEssentials
#else
  import Foundation
#endif

/// Verifies webhooks signed as Standard Webhooks says, with one or several keys of which any may match.
///
/// Signatures are compared in constant time. A verifier keeps no record of ids: within the tolerance, recognising a
/// repeated webhook by its id is the receiver's task.
///
/// Source: Standard Webhooks 1.0.0, "Verifying webhook authenticity".
public struct WebhookVerifier: Sendable {
  /// The longest `webhook-id` accepted, in bytes.
  public static let idLimitBytes = 256
  /// The longest `webhook-signature` header accepted, in bytes.
  public static let signatureHeaderLimitBytes = 4096
  /// The most signatures read from one header, those of unknown versions included.
  public static let signatureLimit = 32

  private enum State: Sendable {
    case hmac(HMAC<SHA256>)
    case ed25519(Curve25519.Signing.PublicKey)
  }

  private let states: [State]
  private let toleranceSeconds: Double

  /// - Parameters:
  ///   - keys: The keys of which any may have signed. Without keys nothing verifies.
  ///   - tolerance: How far a timestamp may lie from `now`, in the past and in the future alike, the limit included.
  public init(keys: [VerificationKey], tolerance: Duration = .seconds(300)) {
    states = keys.map { key in
      switch key.material {
      case .hmac(let secret): .hmac(HMAC<SHA256>(key: secret))
      case .ed25519(let key): .ed25519(key)
      }
    }
    let parts = tolerance.components
    toleranceSeconds = Double(parts.seconds) + Double(parts.attoseconds) / 1e18
  }

  /// Returns if the webhook is genuine and fresh, and throws otherwise.
  ///
  /// - Parameters:
  ///   - id: The value of the `webhook-id` header, nil if absent.
  ///   - timestamp: The value of the `webhook-timestamp` header as it came, nil if absent.
  ///   - signature: The value of the `webhook-signature` header, nil if absent: space-separated `version,base64`.
  ///     Unknown versions and malformed signatures are skipped; any one valid signature suffices.
  ///   - body: The request's body, byte for byte as it came; not parsed and written again.
  ///   - now: The time to compare the timestamp with.
  /// - Throws: ``WebhookVerificationError``. Answer the request with 400 or 401.
  public func verify(
    id: String?,
    timestamp: String?,
    signature: String?,
    body: some Collection<UInt8>,
    now: Date = Date()
  ) throws(WebhookVerificationError) {
    let id = try present(id, WebhookHeader.id, limitBytes: Self.idLimitBytes)
    let signature = try present(signature, WebhookHeader.signature, limitBytes: Self.signatureHeaderLimitBytes)
    guard !id.utf8.contains(UInt8(ascii: ".")) else { throw .malformedID }
    guard let timestamp, !timestamp.isEmpty else { throw .missingHeader(name: WebhookHeader.timestamp) }
    guard let seconds = UnixSeconds.parse(timestamp) else { throw .malformedTimestamp }
    try checkAge(seconds, now: now)

    let candidates = try SignatureCandidates(parsing: signature, limit: Self.signatureLimit)
    let matches = withBytes(of: body) { bytes in
      anyMatches(candidates, id: id, timestamp: seconds, body: bytes)
    }
    if !matches { throw isSupported(candidates) ? .noMatchingSignature : .noSupportedSignature }
  }

  private func present(
    _ value: String?,
    _ name: String,
    limitBytes: Int
  ) throws(WebhookVerificationError) -> String {
    guard let value, !value.isEmpty else { throw .missingHeader(name: name) }
    guard value.utf8.count <= limitBytes else { throw .headerTooLong(name: name, limitBytes: limitBytes) }
    return value
  }

  private func checkAge(_ seconds: Int, now: Date) throws(WebhookVerificationError) {
    let age = now.timeIntervalSince1970 - Double(seconds)
    // Written so that an age that is not a number is refused as well.
    if age > toleranceSeconds { throw .timestampTooOld(ageSeconds: UnixSeconds.clamped(age)) }
    guard -age <= toleranceSeconds else { throw .timestampTooNew(aheadSeconds: UnixSeconds.clamped(-age)) }
  }

  private func isSupported(_ candidates: SignatureCandidates) -> Bool {
    states.contains { state in
      switch state {
      case .hmac: candidates.hasHMAC
      case .ed25519: candidates.hasEd25519
      }
    }
  }

  private func anyMatches(
    _ candidates: SignatureCandidates,
    id: String,
    timestamp: Int,
    body: UnsafeRawBufferPointer
  ) -> Bool {
    SignedContent.withPrefix(id: id, timestamp: timestamp) { prefix in
      // Ed25519 needs the content in one piece; made once, and only if there is something to check with it.
      lazy var message = [UInt8](prefix) + [UInt8](body)
      return states.contains { state in
        switch state {
        case .hmac(let keyed):
          guard !candidates.hmac.isEmpty else { return false }
          var code = keyed
          code.update(data: prefix)
          code.update(data: body)
          let expected = code.finalize()
          // The library compares a code with bytes in constant time.
          return candidates.hmac.contains { expected == $0 }
        case .ed25519(let key):
          return candidates.ed25519.contains { key.isValidSignature($0, for: message) }
        }
      }
    }
  }
}

extension WebhookVerifier: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// How many keys there are, and nothing of them.
  public var description: String { "WebhookVerifier(\(states.count) keys)" }

  /// The same as ``description``.
  public var debugDescription: String { description }

  /// Empty, so that `dump` and logging by reflection reveal nothing.
  public var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}
