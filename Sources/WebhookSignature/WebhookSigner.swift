import Crypto

/// Signs webhooks with one or several keys. Make one per set of keys and keep it: the keyed state of every HMAC is
/// computed once, here, and copied for each signature.
///
/// Several keys are for a rotation: the header then carries one signature per key, and a receiver that knows any of
/// them accepts the webhook.
///
/// Source: Standard Webhooks 1.0.0, "Signature scheme" and "Webhook headers".
public struct WebhookSigner: Sendable {
  private enum State: Sendable {
    case hmac(HMAC<SHA256>)
    case ed25519(Curve25519.Signing.PrivateKey)
  }

  private let states: [State]
  private let headerCapacity: Int

  /// A signer that writes one signature per key, in the order given. Without keys, signatures are empty and
  /// ``headers(id:timestamp:body:)`` has no signature header.
  public init(keys: [SigningKey]) {
    states = keys.map { key in
      switch key.material {
      case .hmac(let secret): .hmac(HMAC<SHA256>(key: secret))
      case .ed25519(let pair): .ed25519(pair)
      }
    }
    headerCapacity = states.reduce(0) { capacity, state in
      switch state {
      case .hmac: capacity + Self.hmacEntryLength + 1
      case .ed25519: capacity + Self.ed25519EntryLength + 1
      }
    }
  }

  /// The value of the `webhook-signature` header: space-separated `v1,<base64>` (HMAC-SHA256) and `v1a,<base64>`
  /// (ed25519), one per key, over exactly the bytes `id.timestamp.body`.
  ///
  /// - Parameters:
  ///   - id: The value of the `webhook-id` header. Must not contain a full stop, or what is signed could be read in
  ///     two ways; ``WebhookVerifier`` refuses such an id.
  ///   - timestamp: The value of the `webhook-timestamp` header: the time of this attempt in whole seconds since
  ///     1970-01-01 UTC.
  ///   - body: Exactly the bytes that are sent as the request's body; may be empty. Not copied for HMAC keys.
  /// - Returns: The header value; empty if the signer has no keys.
  public func signature(id: String, timestamp: Int, body: UnsafeRawBufferPointer) -> String {
    guard !states.isEmpty else { return "" }
    return SignedContent.withPrefix(id: id, timestamp: timestamp) { prefix in
      String(unsafeUninitializedCapacity: headerCapacity) { output in
        write(prefix: prefix, body: body, into: output)
      }
    }
  }

  /// The same for any collection of bytes; without a copy where they lie in one piece (`Array`, `Data`, `ArraySlice`).
  public func signature(id: String, timestamp: Int, body: some Collection<UInt8>) -> String {
    withBytes(of: body) { signature(id: id, timestamp: timestamp, body: $0) }
  }

  /// The three headers of a signed webhook: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
  ///
  /// - Parameters: as for ``signature(id:timestamp:body:)-(_,_,UnsafeRawBufferPointer)``.
  /// - Returns: Names in lower case with their values. Without keys the signature header is absent.
  public func headers(
    id: String,
    timestamp: Int,
    body: some Collection<UInt8>
  ) -> [(name: String, value: String)] {
    var headers = [(name: WebhookHeader.id, value: id), (name: WebhookHeader.timestamp, value: String(timestamp))]
    if !states.isEmpty {
      headers.append((WebhookHeader.signature, signature(id: id, timestamp: timestamp, body: body)))
    }
    return headers
  }

  // `v1,` and 32 bytes in base64; `v1a,` and 64 bytes in base64.
  private static let hmacEntryLength = 3 + StrictBase64.encodedCount(ofBytes: 32)
  private static let ed25519EntryLength = 4 + StrictBase64.encodedCount(ofBytes: 64)

  /// Writes the header value into `output` and returns its length in bytes.
  private func write(
    prefix: UnsafeRawBufferPointer,
    body: UnsafeRawBufferPointer,
    into output: UnsafeMutableBufferPointer<UInt8>
  ) -> Int {
    var end = 0
    func append(_ version: StaticString, _ signature: UnsafeRawBufferPointer) {
      if end > 0 {
        output[end] = UInt8(ascii: " ")
        end += 1
      }
      version.withUTF8Buffer { text in
        end = output[end...].update(fromContentsOf: text)
      }
      StrictBase64.encode(signature, into: UnsafeMutableBufferPointer(rebasing: output[end...]))
      end += StrictBase64.encodedCount(ofBytes: signature.count)
    }
    for state in states {
      switch state {
      case .hmac(let keyed):
        var code = keyed
        code.update(data: prefix)
        code.update(data: body)
        code.finalize().withUnsafeBytes { append("v1,", $0) }
      case .ed25519(let key):
        // Ed25519 hashes the message twice, so it has to lie in one piece.
        let message = [UInt8](prefix) + [UInt8](body)
        guard let signature = try? key.signature(for: message) else {
          // BoringSSL's ed25519 has no failure that depends on its input; this would be an exhausted heap.
          preconditionFailure("WebhookSigner: ed25519 could not sign")
        }
        [UInt8](signature).withUnsafeBytes { append("v1a,", $0) }
      }
    }
    return end
  }
}

extension WebhookSigner: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// How many keys there are, and nothing of them.
  public var description: String { "WebhookSigner(\(states.count) keys)" }

  /// The same as ``description``.
  public var debugDescription: String { description }

  /// Empty, so that `dump` and logging by reflection reveal nothing.
  public var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}
