import WebhookSignature

/// Which keys sign when. A secret that expires stops signing at that moment, though nobody touches the endpoint.
struct SignerSchedule: Sendable {
  /// In the order of their ends. Of a key that does not end the end is `.max`.
  private let phases: [(until: Int64, signer: WebhookSigner)]

  /// - Parameter keys: with their ends, in microseconds since 1970; nil: none.
  init(_ keys: [(key: SigningKey, expiresAt: Int64?)]) {
    let ends = Set(keys.map { $0.expiresAt ?? .max }).sorted()
    phases = ends.map { end in
      (end, WebhookSigner(keys: keys.filter { ($0.expiresAt ?? .max) >= end }.map(\.key)))
    }
  }

  /// The signer for a time in seconds since 1970; nil if no key is valid then.
  func signer(at seconds: Int) -> WebhookSigner? {
    let now = Int64(seconds) * 1_000_000
    return phases.first { now < $0.until }?.signer
  }
}
