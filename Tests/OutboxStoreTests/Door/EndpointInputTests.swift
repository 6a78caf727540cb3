import Foundation
import OutboxStore
import Postgres
import Testing

@Suite struct EndpointInputTests {
  static let urls: [(url: String, words: String)] = [
    ("", "it is empty"), ("ftp://example.com/", "must begin with https://"),
    ("example.com", "must begin with https://"),
    ("javascript:alert(1)", "must begin with https://"), ("https://user:pw@example.com/", "credentials"),
    ("https://user@example.com/", "credentials"), ("https://", "no valid host"), ("https:///path", "no valid host"),
    ("https://:443/", "no valid host"), ("https://?q", "no valid host"), ("https://exa mple.com/", "white space"),
    ("https://example.com/\r\nX: y", "control character"), ("https://example.com/\u{0}x", ""),
    ("https://example.com:0/", "port"), ("https://example.com:65536/", "port"),
    ("https://example.com:x/", "host and port"),
    ("https://example.com/#top", "fragment"), ("https://example.com\\@evil.com/", "backslash"),
    ("https://example.com/" + String(repeating: "x", count: 2048), "longer than 2048"),
    ("https://[::1/", "no valid host"),
  ]

  @Test func badURLsAreRefusedWithTheReason() async throws {
    try await withDatabase { database in
      let client = database.client()
      for bad in Self.urls {
        let error = try await client.refusal("SELECT outbox.add_endpoint($1)", [.text(bad.url)])
        if bad.words.isEmpty {
          #expect(error.sqlState == "22021")
        } else {
          #expect(error.sqlState == "23514" && error.message.contains(bad.words), "\(bad.url): \(error)")
        }
      }
      let null = try await client.refusal("SELECT outbox.add_endpoint(NULL)")
      #expect(null.sqlState == "23514")
      #expect(try await client.int("SELECT count(*) FROM outbox.endpoint") == 0)
      #expect(try await client.int("SELECT count(*) FROM outbox.endpoint_secret") == 0)
    }
  }

  @Test(arguments: [
    "https://example.com", "https://example.com:8443/a?b=c", "http://127.0.0.1:1/", "https://[::1]:8080/x",
    "HTTPS://EXAMPLE.COM/", "https://xn--bcher-kva.example/", "https://example.com/a@b", "https://example.com/?a=b@c",
  ])
  func goodURLIsTaken(url: String) async throws {
    try await withDatabase { database in
      let id = try await database.client().value("SELECT outbox.add_endpoint($1)", [.text(url)])
      #expect(id != nil)
    }
  }

  static let refused: [(arguments: String, words: String)] = [
    (#"headers => '{"X-A": "a\r\nB: c"}'"#, "control character"),
    (#"headers => '{"X-A": "a\nb"}'"#, "control character"),
    (#"headers => '{"X A": "a"}'"#, "not a valid header name"),
    (#"headers => '{"X:A": "a"}'"#, "not a valid header name"),
    (#"headers => '{"": "a"}'"#, "not a valid header name"), (#"headers => '{"Host": "a"}'"#, "set by Martlet"),
    (#"headers => '{"Webhook-Id": "a"}'"#, "set by Martlet"),
    (#"headers => '{"CONTENT-LENGTH": "1"}'"#, "set by Martlet"),
    (#"headers => '{"Transfer-Encoding": "chunked"}'"#, "set by Martlet"),
    (#"headers => '{"X": 1}'"#, "must be a string"),
    (#"headers => '{"X": null}'"#, "must be a string"), ("headers => '[]'", "must be a JSON object"),
    ("headers => NULL", "headers"), ("event_types => '{}'", "there is none"), ("event_types => NULL", "there is none"),
    ("event_types => '{a.*.b}'", "neither a type"), ("event_types => '{**}'", "neither a type"),
    ("event_types => '{.*}'", "neither a type"), ("event_types => '{\"a b\"}'", "neither a type"),
    ("event_types => '{NULL}'", "neither a type"), ("event_types => '{\"\"}'", "neither a type"),
    ("secret => 'geheim'", "the secret is not usable"), ("secret => 'whsec_'", "the secret is not usable"),
    ("secret => 'whsec_a'", "the secret is not usable"), ("format => 'xml'", "format"), ("timeout => '0'", "timeout"),
    ("max_attempts => 0", "max_attempts"), ("max_in_flight => 0", "max_in_flight"), ("jitter => 2", "jitter"),
    ("multiplier => 'NaN'", "multiplier"), ("first_delay => '-1 s'", "first_delay"),
    ("tenant => repeat('x', 256)", "tenant"),
  ]

  @Test func badSettingsAreRefusedWithTheReason() async throws {
    try await withDatabase { database in
      let client = database.client()
      for bad in Self.refused {
        let error = try await client.refusal("SELECT outbox.add_endpoint('https://example.com', \(bad.arguments))")
        #expect(
          ["23514", "23502"].contains(error.sqlState) && error.message.contains(bad.words),
          "\(bad.arguments): \(error)"
        )
        #expect(!error.description.contains("geheim"), "a secret must not be repeated")
      }
      #expect(try await client.int("SELECT count(*) FROM outbox.endpoint") == 0)
    }
  }

  @Test(arguments: ["pause", "resume", "disable", "rotate_secret", "redrive", "discard"])
  func unknownOneIsNamed(function: String) async throws {
    try await withDatabase { database in
      let error = try await database.client().refusal("SELECT outbox.\(function)(42)")
      #expect(error.sqlState == "P0002" && error.message.contains("42"), "\(error)")
      let null = try await database.client().refusal("SELECT outbox.\(function)(NULL)")
      #expect(null.sqlState == "P0002")
    }
  }

  @Test func rotatedSecretsOverlap() async throws {
    try await withDatabase { database in
      let client = database.client()
      let endpoint = try await client.addEndpoint(
        "secret => 'whsec_\(Data("0123456789abcdef0123456789abcdef".utf8).base64EncodedString())'"
      )
      let before = try await client.store { try $0.endpoints([endpoint])[0] }
      let fresh = try #require(try await client.value("SELECT outbox.rotate_secret(\(endpoint))"))
      let after = try await client.store { try $0.endpoints([endpoint])[0] }
      #expect(after.secrets.map(\.text.revealed) == [fresh] + before.secrets.map(\.text.revealed))
      #expect(after.secrets.map { $0.expiresAt == nil } == [true, false])
      #expect(after.version > before.version)
      try await client.execute("SELECT outbox.rotate_secret(\(endpoint), '0 s')")
      #expect(try await client.store { try $0.endpoints([endpoint])[0].secrets.count } == 2)
      let bad = try await client.refusal("SELECT outbox.rotate_secret(\(endpoint), secret => 'short')")
      #expect(bad.sqlState == "23514")
      let endless = try await client.refusal("SELECT outbox.rotate_secret(\(endpoint), NULL)")
      #expect(endless.sqlState == "22004" && endless.message.contains("overlap"), "\(endless)")
      #expect(try await client.store { try $0.endpoints([endpoint])[0].secrets.count } == 2)
    }
  }
}
