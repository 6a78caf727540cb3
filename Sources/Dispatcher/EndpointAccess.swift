import Foundation
import HTTPDelivery
import OutboxStore
import SecretSealing
import WebhookSignature

/// An endpoint's secrets and credentials, opened and made ready.
struct EndpointAccess: Sendable {
  private(set) var signers = SignerSchedule([])
  /// `Authorization: …`, if there is one that is always the same.
  private(set) var authorization: String?
  private(set) var clientIdentity: ClientIdentity?
  private(set) var oauth2: OAuth2Client?
  /// What cannot be used, in words. Then nothing is sent: with fewer signatures or without a credential a receiver would
  /// refuse it, or worse, take it.
  private(set) var problems: [String] = []

  init(_ settings: EndpointSettings, keyring: Keyring, egress: EgressPolicy) {
    var keys: [(key: SigningKey, expiresAt: Int64?)] = []
    for secret in settings.secrets {
      do {
        let text = try keyring.open(secret.text.revealed, for: .secret(endpoint: settings.id))
        keys.append((try SigningKey(parsing: text), secret.expiresAt))
      } catch {
        problems.append("a secret is not usable: \(error)")
      }
    }
    if settings.secrets.isEmpty { problems.append(Self.noSecret) }
    signers = SignerSchedule(keys)
    for credential in settings.credentials {
      do {
        try use(
          Credential(
            kind: credential.kind,
            json: keyring.open(
              credential.value.revealed,
              for: .credential(kind: credential.kind, endpoint: settings.id)
            )
          ),
          egress
        )
      } catch {
        problems.append("its credential \(credential.kind) is not usable: \(error)")
      }
    }
  }

  static let noSecret = "it has no valid secret; outbox.rotate_secret makes one"

  private mutating func use(_ credential: Credential, _ egress: EgressPolicy) throws {
    switch credential {
    case .basic(let username, let password):
      // RFC 7617.
      authorization = "Authorization: Basic " + Data("\(username):\(password)".utf8).base64EncodedString()
    case .bearer(let token):
      authorization = "Authorization: Bearer " + token
    case .clientCertificate(let certificate, let privateKey):
      clientIdentity = try ClientIdentity(certificateChain: certificate, privateKey: privateKey)
    case .oauth2(let client):
      do {
        _ = try WebhookURL(validating: client.tokenURL, policy: egress)
      } catch {
        throw CredentialError("the token URL: \(error)")
      }
      oauth2 = client
    }
  }
}
