import Foundation
import Postgres
import TestSupport
import Testing

@testable import Dispatcher

/// The JSON that a credential is stored as, which SQL and Swift both write and read.
@Suite struct CredentialFormTests {
  static let credentials: [Credential] = [
    .basic(username: "shöp", password: "a\"b\\c/d"), .basic(username: "", password: "x"), .bearer(token: "abc=="),
    .clientCertificate(certificate: "-----BEGIN\n…", privateKey: "-----BEGIN\r\n…"),
    .oauth2(OAuth2Client(tokenURL: "https://x/y?z", clientID: "a", clientSecret: "b", scope: "c d", audience: "e")),
    .oauth2(OAuth2Client(tokenURL: "https://x/", clientID: "a", clientSecret: "b")),
  ]

  @Test(arguments: credentials) func whatIsWrittenIsReadAgain(credential: Credential) throws {
    let read = try Credential(kind: credential.kind, json: credential.json)
    #expect(read.json == credential.json)
    #expect("\(credential)" == "Credential(\(credential.kind))")
    var dumped = ""
    dump(credential, to: &dumped)
    #expect(!dumped.contains("BEGIN") && !dumped.contains("abc=="))
  }

  /// Rules that both have must not differ: what one lets in the other has to use.
  @Test func sqlAndSwiftAgreeOnWhatIsUsable() async throws {
    let database = try await TestDatabase.make()
    let long = String(repeating: "x", count: 1025)
    let cases: [Credential] = [
      .basic(username: "", password: ""), .basic(username: "a", password: ""), .basic(username: "a:b", password: "c"),
      .basic(username: "a", password: "b:c"), .basic(username: "a\nb", password: "c"),
      .basic(username: long, password: ""),
      .basic(username: "a", password: long), .basic(username: "a", password: "b\u{7F}"), .bearer(token: ""),
      .bearer(token: "a b"), .bearer(token: "ä"), .bearer(token: "a\tb"), .bearer(token: "~!"),
      .bearer(token: String(repeating: "x", count: 4000)), .bearer(token: String(repeating: "x", count: 4001)),
      .oauth2(OAuth2Client(tokenURL: "https://x/", clientID: "", clientSecret: "b")),
      .oauth2(OAuth2Client(tokenURL: "https://x/", clientID: "a", clientSecret: "")),
      .oauth2(OAuth2Client(tokenURL: "https://x/", clientID: "a", clientSecret: "b", scope: "", audience: "")),
      .oauth2(OAuth2Client(tokenURL: "https://x/", clientID: "a", clientSecret: "b", scope: "a\nb")),
      .oauth2(OAuth2Client(tokenURL: "https://x/", clientID: "a", clientSecret: "b", audience: long)),
    ]
    for credential in cases {
      let refusal = try await database.session.withConnection { connection in
        try connection.query(
          "SELECT outbox.credential_problem($1, $2)",
          [.text(credential.kind), .jsonb(credential.json)]
        ).string(0, 0)
      }
      #expect((refusal == nil) == (credential.problem == nil), "\(refusal ?? "fine") – \(credential.problem ?? "fine")")
    }
  }

  @Test(arguments: [
    ("basic", "geheim"), ("basic", "[]"), ("bearer", "{}"), ("bearer", #"{"token": 7}"#),
    ("oauth2", #"{"token_url": "x"}"#),
    ("client_certificate", #"{"certificate": "geheim"}"#), ("cookie", "{}"), ("bearer", #"{"token": "geheim geheim"}"#),
  ])
  func whatCannotBeReadIsAnErrorThatRepeatsNothing(kind: String, json: String) {
    let error = #expect(throws: CredentialError.self) { try Credential(kind: kind, json: json) }
    #expect(error.map { !"\($0)".contains("geheim") } == true)
  }
}
