import Foundation
import OutboxStore
import Postgres
import Testing

@Suite struct CredentialInputTests {
  static let certificate = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
  static let key = "-----BEGIN EC PRIVATE KEY-----\nQUJD\n-----END EC PRIVATE KEY-----\n"

  static let refused: [(call: String, words: String)] = [
    ("set_basic_auth(1, 'a:b', 'geheim')", "a colon"), ("set_basic_auth(1, '', '')", "are missing"),
    ("set_basic_auth(1, NULL, NULL)", "are missing"), ("set_basic_auth(1, E'a\\nb', 'geheim')", "control character"),
    ("set_basic_auth(1, 'a', E'geheim\\r\\nX: y')", "control character"),
    ("set_basic_auth(1, 'a', repeat('x', 1025))", "longer than 1024"), ("set_bearer_token(1, '')", "is empty"),
    ("set_bearer_token(1, NULL)", "is missing"), ("set_bearer_token(1, 'geheim geheim')", "a space"),
    ("set_bearer_token(1, 'geheimü')", "not ASCII"), ("set_bearer_token(1, E'geheim\\n')", "control character"),
    ("set_bearer_token(1, repeat('x', 4001))", "longer than 4000"),
    ("set_client_certificate(1, 'geheim', '\(key)')", "the certificate is not PEM"),
    ("set_client_certificate(1, '\(certificate)', 'geheim')", "the private key is not PEM"),
    ("set_client_certificate(1, '\(certificate)', '\(certificate)')", "the private key is not PEM"),
    ("set_client_certificate(1, '\(certificate)\(key)', '\(key)')", "give the two apart"),
    ("set_client_certificate(1, '\(certificate)', NULL)", "the private key is missing"),
    ("set_client_certificate(1, '\(certificate)', '-----BEGIN ENCRYPTED PRIVATE KEY-----')", "passphrase"),
    (
      "set_client_certificate(1, '\(certificate)', E'-----BEGIN RSA PRIVATE KEY-----\\nProc-Type: 4,ENCRYPTED\\n')",
      "passphrase"
    ),
    ("set_client_certificate(1, repeat('x', 65537), '\(key)')", "longer than 65536"),
    ("set_oauth2(1, 'ftp://x', 'a', 'geheim')", "the token URL is not usable: it must begin"),
    ("set_oauth2(1, 'https://u:geheim@x/', 'a', 'geheim')", "the token URL is not usable: it contains credentials"),
    ("set_oauth2(1, NULL, 'a', 'geheim')", "the token URL is not usable"),
    ("set_oauth2(1, 'https://x/', '', 'geheim')", "the client id is empty"),
    ("set_oauth2(1, 'https://x/', 'a', '')", "the client secret is empty"),
    ("set_oauth2(1, 'https://x/', 'a', 'geheim', E'a\\nb')", "the scope contains"),
    ("set_oauth2(1, 'https://x/', 'a', 'geheim', NULL, E'a\\nb')", "the audience contains"),
    ("set_sealed_credential(1, 'basic', 'geheim')", "not a sealed credential"),
    ("set_sealed_credential(1, 'basic', 'sealed:v1:0000000g:AAAA')", "not a sealed credential"),
    ("set_sealed_credential(1, 'basic', NULL)", "not a sealed credential"),
    ("set_sealed_credential(1, 'cookie', 'sealed:v1:00000000:\(String(repeating: "A", count: 80))')", "kind"),
    ("clear_credential(1, 'cookie')", "no such kind"),
  ]

  @Test func badCredentialsAreRefusedWithTheReasonAndNotRepeated() async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.addEndpoint()
      for bad in Self.refused {
        let error = try await client.refusal("SELECT outbox.\(bad.call)")
        #expect(error.sqlState == "23514" && error.message.contains(bad.words), "\(bad.call): \(error)")
        let all = [error.message, error.detail, error.hint, error.context].compactMap { $0 }.joined(separator: " ")
        #expect(!all.contains("geheim"), "\(bad.call): \(all)")
      }
      #expect(try await client.int("SELECT count(*) FROM outbox.endpoint_credential") == 0)
    }
  }

  @Test(arguments: [
    "set_basic_auth(42, 'a', 'b')", "set_bearer_token(42, 'a')", "clear_credential(42)", "clear_credential(NULL)",
    "set_oauth2(42, 'https://x/', 'a', 'b')",
  ])
  func unknownEndpointIsNamed(call: String) async throws {
    try await withDatabase { database in
      let error = try await database.client().refusal("SELECT outbox.\(call)")
      #expect(error.sqlState == "P0002")
    }
  }

  @Test func authorizationAmongHeadersIsRefusedWithAHint() async throws {
    try await withDatabase { database in
      let client = database.client()
      for name in ["Authorization", "authorization", "AUTHORIZATION"] {
        let error = try await client.refusal(
          "SELECT outbox.add_endpoint('https://example.com', headers => jsonb_build_object('\(name)', 'Bearer geheim'))"
        )
        #expect(error.message.contains("set_bearer_token") && !error.description.contains("geheim"), "\(error)")
      }
      let url = try await client.refusal("SELECT outbox.add_endpoint('https://u:p@example.com/')")
      #expect(url.message.contains("set_basic_auth"))
    }
  }

  @Test func keysAreOfTheKindAskedForAndShowTheirPublicHalf() async throws {
    try await withDatabase { database in
      let client = database.client()
      let keys = { try await client.rows("SELECT kind, public_key FROM outbox.endpoint_key ORDER BY id") }
      let endpoint = try await client.addEndpoint("signature => 'ed25519'")
      let seed = try #require(try await client.value("SELECT secret FROM outbox.endpoint_secret"))
      #expect(seed.hasPrefix("whsk_") && Data(base64Encoded: String(seed.dropFirst(5)))?.count == 32)
      // The same kind as before; the private half is nobody's business.
      #expect(try await client.rows("SELECT outbox.rotate_secret(\(endpoint))") == [[nil]])
      let hmac = try await client.value("SELECT outbox.rotate_secret(\(endpoint), signature => 'hmac')")
      #expect(hmac?.hasPrefix("whsec_") == true)
      #expect(try await keys() == [["ed25519", nil], ["ed25519", nil], ["hmac", nil]])
      let pair = Data(repeating: 1, count: 32) + Data(repeating: 2, count: 32)
      _ = try await client.rows(
        "SELECT outbox.rotate_secret(\(endpoint), secret => 'whsk_\(pair.base64EncodedString())')"
      )
      let publicKey = "whpk_" + Data(repeating: 2, count: 32).base64EncodedString()
      #expect(try await keys().last == ["ed25519", publicKey])
      let sealed = "sealed:v1:00000000:" + String(repeating: "A", count: 80)
      for (key, kind) in [("NULL", "hmac"), ("'\(publicKey)'", "ed25519")] {
        _ = try await client.rows(
          "SELECT outbox.rotate_secret(\(endpoint), secret => '\(sealed)', public_key => \(key))"
        )
        #expect(try await keys().last == [kind, kind == "hmac" ? nil : publicKey])
      }
      for bad in [
        "rotate_secret(\(endpoint), signature => 'rsa')", "rotate_secret(\(endpoint), signature => 'later')",
        "add_endpoint('https://example.com', signature => 'rsa')",
        "add_endpoint('https://example.com', signature => NULL)",
        "rotate_secret(\(endpoint), secret => '\(sealed)', public_key => 'whpk_x')",
        "rotate_secret(\(endpoint), secret => 'sealed:v1:00000000:AAAA')",
        "rotate_secret(\(endpoint), secret => 'sealed:x')",
      ] {
        #expect(try await client.refusal("SELECT outbox.\(bad)").sqlState == "23514", "\(bad)")
      }
      let later = try await client.addEndpoint("signature => 'later'")
      #expect(try await client.store { try $0.endpoints([later])[0].secrets } == [])
    }
  }

  @Test func twoWhoSetDifferentKindsAtOnceLeaveOne() async throws {
    try await withDatabase { database in
      try await database.client().addEndpoint()
      for _ in 0..<10 {
        async let basic = database.client().rows("SELECT outbox.set_basic_auth(1, 'a', 'b')")
        async let bearer = database.client().rows("SELECT outbox.set_bearer_token(1, 'a')")
        _ = try await (basic, bearer)
        #expect(try await database.client().int("SELECT count(*) FROM outbox.endpoint_credential") == 1)
      }
    }
  }

  @Test func tenSecretsSignAtMost() async throws {
    try await withDatabase { database in
      let client = database.client()
      let endpoint = try await client.addEndpoint()
      for _ in 0..<9 { _ = try await client.rows("SELECT outbox.rotate_secret(\(endpoint))") }
      let error = try await client.refusal("SELECT outbox.rotate_secret(\(endpoint))")
      #expect(error.sqlState == "54000" && error.hint?.contains("expires_at") == true, "\(error)")
      let version = "SELECT version FROM outbox.endpoint"
      let before = try await client.int(version)
      try await client.execute("UPDATE outbox.endpoint_secret SET expires_at = now() WHERE id = 1")
      #expect(try await client.int(version) > before, "dispatchers must hear of it")
      _ = try await client.rows("SELECT outbox.rotate_secret(\(endpoint))")
    }
  }
}
