import OutboxStore
import SecretSealing
import WebhookSignature

/// Seals what is stored in plain, seals anew what is under an older key, and works out the public half of ed25519 keys that
/// were made in SQL.
package struct SealingSweep: Sendable {
  package struct Report: Sendable, Equatable {
    package var sealed = 0
    package var resealed = 0
    package var publicKeys = 0
    /// What could not be opened, in words, each with its endpoint. At most ``SealingSweep/namedLimit``.
    package var problems: [String] = []
    package var unopened = 0
  }

  package static let namedLimit = 100
  private static let batch = 200

  private let keyring: Keyring

  package init(_ keyring: Keyring) { self.keyring = keyring }

  /// Goes through everything once, a transaction a batch. A value that somebody changed meanwhile is left for the next time.
  package func run(_ store: OutboxStore) throws -> Report {
    var report = Report()
    var secretPlace = (endpoint: Int64(0), id: Int64(0))
    repeat {
      let (last, found) = try store.connection.transaction { _ in
        try store.beginSealing()
        let secrets = try store.unsealedSecrets(keyID: keyring.sealingKeyID, after: secretPlace, limit: Self.batch)
        try seal(secrets, store, &report)
        return (secrets.last, secrets.count)
      }
      guard let last, found == Self.batch else { break }
      secretPlace = (last.endpoint, last.id)
    } while true
    var credentialPlace = (endpoint: Int64(0), kind: "")
    repeat {
      let (last, found) = try store.connection.transaction { _ in
        try store.beginSealing()
        let credentials = try store.unsealedCredentials(
          keyID: keyring.sealingKeyID,
          after: credentialPlace,
          limit: Self.batch
        )
        try seal(credentials, store, &report)
        return (credentials.last, credentials.count)
      }
      guard let last, found == Self.batch else { break }
      credentialPlace = (last.endpoint, last.kind)
    } while true
    return report
  }

  private func seal(_ secrets: [StoredSecret], _ store: OutboxStore, _ report: inout Report) throws {
    var changes: [(old: StoredSecret, text: Sensitive, publicKey: String?)] = []
    for secret in secrets {
      let use = SealedUse.secret(endpoint: secret.endpoint)
      do {
        let plain = try keyring.open(secret.text.revealed, for: use)
        let publicKey = secret.isEd25519 && secret.publicKey == nil ? Self.publicKey(of: plain) : nil
        if publicKey != nil { report.publicKeys += 1 }
        if keyring.isEmpty || keyring.isSealed(secret.text.revealed) {
          if publicKey != nil { changes.append((secret, secret.text, publicKey)) }
        } else {
          report.count(plain == secret.text.revealed)
          changes.append((secret, Sensitive(try keyring.seal(plain, for: use)), publicKey))
        }
      } catch {
        report.note("a secret of endpoint \(secret.endpoint): \(error)")
      }
    }
    if !changes.isEmpty { _ = try store.replace(changes) }
  }

  private func seal(_ credentials: [StoredCredential], _ store: OutboxStore, _ report: inout Report) throws {
    var changes: [(old: StoredCredential, value: Sensitive)] = []
    for credential in credentials {
      let use = SealedUse.credential(kind: credential.kind, endpoint: credential.endpoint)
      do {
        let plain = try keyring.open(credential.value.revealed, for: use)
        guard !keyring.isEmpty else { continue }
        report.count(plain == credential.value.revealed)
        changes.append((credential, Sensitive(try keyring.seal(plain, for: use))))
      } catch {
        report.note("credential \(credential.kind) of endpoint \(credential.endpoint): \(error)")
      }
    }
    if !changes.isEmpty { _ = try store.replace(changes) }
  }

  /// Nil for a key that cannot be used: delivery says so.
  private static func publicKey(of secret: String) -> String? { (try? SigningKey(parsing: secret))?.publicKey }
}

extension SealingSweep.Report {
  fileprivate mutating func count(_ wasPlain: Bool) {
    if wasPlain { sealed += 1 } else { resealed += 1 }
  }

  fileprivate mutating func note(_ problem: String) {
    unopened += 1
    if problems.count < SealingSweep.namedLimit { problems.append(problem) }
  }
}
