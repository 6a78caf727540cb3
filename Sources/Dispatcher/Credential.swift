import Foundation
import SecretSealing

/// What Martlet shows an endpoint beside a signature. Stored as JSON in `outbox.endpoint_credential`, plain or sealed.
package enum Credential: Sendable {
  case basic(username: String, password: String)
  case bearer(token: String)
  /// Both PEM.
  case clientCertificate(certificate: String, privateKey: String)
  case oauth2(OAuth2Client)

  /// As in `outbox.endpoint_credential.kind`.
  package var kind: String {
    switch self {
    case .basic: "basic"
    case .bearer: "bearer"
    case .clientCertificate: "client_certificate"
    case .oauth2: "oauth2"
    }
  }

  package init(kind: String, json: String) throws(CredentialError) {
    switch kind {
    case "basic":
      let value = try Self.decode(BasicValue.self, json)
      self = .basic(username: value.username ?? "", password: value.password ?? "")
    case "bearer":
      self = .bearer(token: try Self.decode(BearerValue.self, json).token)
    case "client_certificate":
      let value = try Self.decode(CertificateValue.self, json)
      self = .clientCertificate(certificate: value.certificate, privateKey: value.privateKey)
    case "oauth2":
      let value = try Self.decode(OAuth2Value.self, json)
      self = .oauth2(
        OAuth2Client(
          tokenURL: value.tokenUrl,
          clientID: value.clientId,
          clientSecret: value.clientSecret,
          scope: value.scope,
          audience: value.audience
        )
      )
    default: throw CredentialError("its kind is unknown to this version of martlet")
    }
    if let problem { throw CredentialError(problem) }
  }

  /// **The credential itself**, as it is stored.
  package var json: String {
    switch self {
    case .basic(let username, let password): Self.encode(BasicValue(username: username, password: password))
    case .bearer(let token): Self.encode(BearerValue(token: token))
    case .clientCertificate(let certificate, let privateKey):
      Self.encode(CertificateValue(certificate: certificate, privateKey: privateKey))
    case .oauth2(let client):
      Self.encode(
        OAuth2Value(
          tokenUrl: client.tokenURL,
          clientId: client.clientID,
          clientSecret: client.clientSecret,
          scope: client.scope,
          audience: client.audience
        )
      )
    }
  }

  /// What is wrong with it, in words that repeat nothing of it; nil if nothing was found. The same rules as
  /// `outbox.credential_problem`, which a sealed credential never meets.
  package var problem: String? {
    switch self {
    case .basic(let username, let password):
      if username.isEmpty && password.isEmpty { return "the user name and the password are missing" }
      if username.contains(":") { return "the user name contains a colon, which basic authentication cannot express" }
      return Self.problem("user name", username, 1024, mayBeEmpty: true)
        ?? Self.problem("password", password, 1024, mayBeEmpty: true)
    case .bearer(let token):
      if let problem = Self.problem("token", token, 4000) { return problem }
      return token.utf8.allSatisfy { (0x21...0x7E).contains($0) }
        ? nil : "the token contains a space or a character that is not ASCII"
    case .clientCertificate(let certificate, let privateKey):
      if certificate.utf8.count > 65_536 { return "the certificate is longer than 65536 bytes" }
      if privateKey.utf8.count > 65_536 { return "the private key is longer than 65536 bytes" }
      return certificate.isEmpty || privateKey.isEmpty ? "the certificate or its private key is missing" : nil
    case .oauth2(let client):
      return Self.problem("token URL", client.tokenURL, 2048)
        ?? Self.problem("client id", client.clientID, 1024)
        ?? Self.problem("client secret", client.clientSecret, 4000)
        ?? Self.problem("scope", client.scope ?? "", 1024, mayBeEmpty: true)
        ?? Self.problem("audience", client.audience ?? "", 1024, mayBeEmpty: true)
    }
  }

  private static func problem(_ name: String, _ text: String, _ longest: Int, mayBeEmpty: Bool = false) -> String? {
    if text.isEmpty, !mayBeEmpty { return "the \(name) is empty" }
    if text.utf8.count > longest { return "the \(name) is longer than \(longest) bytes" }
    guard text.unicodeScalars.allSatisfy({ $0.properties.generalCategory != .control }) else {
      return "the \(name) contains a control character (a line break, say)"
    }
    return nil
  }

  // The names are those of the stored JSON, there in snake_case.
  private struct BasicValue: Codable { var username: String?, password: String? }
  private struct BearerValue: Codable { var token: String }
  private struct CertificateValue: Codable { var certificate: String, privateKey: String }
  private struct OAuth2Value: Codable {
    var tokenUrl: String, clientId: String, clientSecret: String
    var scope: String?, audience: String?
  }

  /// The decoder's own error would quote what it does not like.
  private static func decode<Value: Decodable>(_ type: Value.Type, _ json: String) throws(CredentialError) -> Value {
    do {
      let decoder = JSONDecoder()
      decoder.keyDecodingStrategy = .convertFromSnakeCase
      return try decoder.decode(type, from: Data(json.utf8))
    } catch {
      throw CredentialError("what is stored is not of the shape of its kind")
    }
  }

  private static func encode(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // Strings and nil always have a JSON form.
    return String(decoding: (try? encoder.encode(value)) ?? Data("{}".utf8), as: UTF8.self)
  }
}

extension Credential: CustomStringConvertible, CustomReflectable {
  /// The kind, and nothing of what is secret.
  package var description: String { "Credential(\(kind))" }
  package var customMirror: Mirror { Mirror(self, children: [], displayStyle: .enum) }
}

/// OAuth 2 client credentials (RFC 6749, 4.4): where a token comes from, and what is shown for it.
package struct OAuth2Client: Sendable, Hashable {
  package var tokenURL: String
  package var clientID: String
  package var clientSecret: String
  package var scope: String?
  package var audience: String?

  package init(tokenURL: String, clientID: String, clientSecret: String, scope: String? = nil, audience: String? = nil)
  {
    self.tokenURL = tokenURL
    self.clientID = clientID
    self.clientSecret = clientSecret
    self.scope = scope
    self.audience = audience
  }
}

extension OAuth2Client: CustomStringConvertible, CustomReflectable {
  package var description: String { "OAuth2Client(\(tokenURL))" }
  package var customMirror: Mirror { Mirror(self, children: [], displayStyle: .struct) }
}

/// Why a credential cannot be used. Contains nothing of it.
package struct CredentialError: Error, Equatable, CustomStringConvertible {
  package let description: String
  package init(_ description: String) { self.description = description }
}
