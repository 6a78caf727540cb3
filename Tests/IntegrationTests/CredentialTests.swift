import Foundation
import Receiver
import SecretSealing
import TestSupport
import Testing

@testable import Dispatcher

/// Credentials as endpoints see them.
@Suite struct CredentialTests {
  private func authorization(_ arrival: Listener.Arrival) -> [String] {
    arrival.headers.filter { $0.name.lowercased() == "authorization" }.map(\.value)
  }

  @Test func endpointsSeeBasicAndBearerAndEachItsOwn() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    let basic = try await database.addEndpoint(listener.url("/basic"))
    let bearer = try await database.addEndpoint(listener.url("/bearer"))
    _ = try await database.addEndpoint(listener.url("/none"))
    try await database.execute(
      "SELECT outbox.set_basic_auth(\(basic), 'Aladdin', 'open sesame'); SELECT outbox.set_bearer_token(\(bearer), 'abc.DEF_~+/=')"
    )
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("all have arrived") { listener.accepted("/none").count == 1 && listener.arrivals.count == 3 }
      // RFC 7617's own example.
      #expect(authorization(listener.accepted("/basic")[0]) == ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="])
      #expect(authorization(listener.accepted("/bearer")[0]) == ["Bearer abc.DEF_~+/="])
      #expect(authorization(listener.accepted("/none")[0]) == [])
      // A running dispatcher learns of changes.
      try await database.execute(
        "SELECT outbox.set_bearer_token(\(basic), 'second'); SELECT outbox.clear_credential(\(bearer))"
      )
      try await database.publish(1)
      try await eventually("all have arrived again") { listener.arrivals.count == 6 }
      #expect(authorization(listener.accepted("/basic")[1]) == ["Bearer second"])
      #expect(authorization(listener.accepted("/bearer")[1]) == [])
    }
  }

  @Test func aCredentialThatCannotBeUsedHoldsDeliveriesBackWithoutUsingThemUp() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    let unusable = [
      "'basic', '{}'", "'bearer', 'geheim'", "'bearer', '{\"token\": 1}'",
      "'bearer', E'{\"token\":\\n\"geheim geheim\"}'",
      "'client_certificate', '{\"certificate\": \"geheim\", \"private_key\": \"geheim\"}'",
      "'oauth2', '{\"token_url\": \"https://10.1.1.1/\", \"client_id\": \"a\", \"client_secret\": \"geheim\"}'",
      "'bearer', 'sealed:v1:00000000:\(String(repeating: "A", count: 80))'", "'bearer', 'sealed:x'",
    ]
    for value in unusable {
      let endpoint = try await database.addEndpoint(listener.url(), options: "max_attempts => 1")
      try await database.execute(
        "INSERT INTO outbox.endpoint_credential (endpoint_id, kind, value) VALUES (\(endpoint), \(value))"
      )
    }
    let log = LogBook()
    try await withDispatcher(database, logger: log.logger) { _ in
      try await database.publish(1)
      try await eventually("all were looked at") {
        try await database.int(
          "SELECT count(*) FROM outbox.delivery WHERE attempts = 0 AND last_error LIKE 'its credential%'"
        )
          == unusable.count
      }
    }
    #expect(listener.arrivals.isEmpty)
    let errors = try await database.rows("SELECT last_error FROM outbox.delivery ORDER BY endpoint_id").map { $0[0]! }
    for error in errors { #expect(!error.contains("geheim"), "\(error)") }
    #expect(errors[5].contains("--allow-network"))
    #expect(!log.text.contains("geheim"))
    #expect(try await database.missing() == 0)
  }

  @Test(.enabled(if: MutualTLSServer.isInstalled, "nginx or openssl is not installed"))
  func aServerThatWantsAClientCertificateGetsIt() async throws {
    let database = try await TestDatabase.make()
    try await MutualTLSServer.with { server in
      let with = try await database.addEndpoint(server.url("/with"), options: "max_attempts => 1")
      let without = try await database.addEndpoint(server.url("/without"), options: "max_attempts => 1")
      let mismatched = try await database.addEndpoint(server.url("/mismatched"), options: "max_attempts => 1")
      try await database.session.withConnection { connection in
        for (endpoint, key) in [(with, server.clientKey), (mismatched, server.otherKey)] {
          _ = try connection.query(
            "SELECT outbox.set_client_certificate($1, $2, $3)",
            [.int8(Int64(endpoint)), .text(server.clientCertificate), .text(key)]
          )
        }
      }
      let keyring = try Keyring(parsing: [Keyring.newKey()])
      let log = LogBook()
      try await withDispatcher(
        database,
        logger: log.logger,
        configure: {
          $0.http.caFile = server.caFile
          $0.keyring = keyring
        }
      ) { _ in
        try await eventually("it is sealed") {
          try await database.int("SELECT count(*) FROM outbox.sealing WHERE sealed_by IS NULL") == 0
        }
        try await database.publish(1)
        try await eventually("all were tried") {
          try await database.int("SELECT count(*) FROM outbox.attempt") == 3
        }
      }
      let outcomes = try await database.rows(
        "SELECT endpoint_id, outcome, status, error FROM outbox.attempt ORDER BY 1"
      )
      #expect(outcomes[0] == ["\(with)", "delivered", "200", nil])
      // nginx answers 400 to those who show none.
      #expect(outcomes[1] == ["\(without)", "failed", "400", "the endpoint answered 400"])
      #expect(
        outcomes[2][0] == "\(mismatched)" && outcomes[2][2] == nil
          && outcomes[2][3]?.contains("client certificate") == true,
        "\(outcomes[2])"
      )
      #expect(try server.accessLog() == ["/with CN=martlet client", "/without -"])
      for line in server.clientKey.split(separator: "\n").dropFirst().dropLast() { #expect(!log.text.contains(line)) }
    }
  }

  /// The command line, a dispatcher at trace level, the server's statement log: none contains a secret.
  @Test func noSecretIsInTheLogNorInErrorsNorInTheTextOfStatements() async throws {
    let database = try await TestDatabase.makeAlone(settings: [
      "log_statement": "all", "log_parameter_max_length": "0", "log_parameter_max_length_on_error": "0",
    ])
    let listener = try await Listener { arrival, _ in arrival.path == "/bad" ? Reply(status: 500, body: "no") : .ok }
    let key = Keyring.newKey()
    let environment = ["DATABASE_URL": database.connectionString, "MARTLET_SECRET_KEY": key, "PW": "pw-7f3a-basic"]
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    try "token-7f3a-bearer\n".write(to: folder.appendingPathComponent("token"), atomically: true, encoding: .utf8)
    func martlet(_ arguments: String...) async throws -> String {
      let result = try await MartletProcess.run(arguments, environment: environment)
      #expect(result.status == 0, "\(arguments): \(result.errors)")
      return result.output + result.errors
    }
    let loopback = ["--allow-http", "--allow-network", "127.0.0.0/8"]
    var secrets = [key, "pw-7f3a-basic", "token-7f3a-bearer", Data("shop:pw-7f3a-basic".utf8).base64EncodedString()]
    var printed = ""
    for (path, flag) in [("/good", "--ed25519"), ("/bad", "--ordered")] {
      let added = try await MartletProcess.run(
        ["endpoint", "add", listener.url(path), flag] + loopback,
        environment: environment
      )
      #expect(added.status == 0, "\(added.errors)")
      if let secret = added.output.firstMatch(of: /whsec_\S+/) { secrets.append(String(secret.0)) }
    }
    #expect(secrets.count == 5)
    printed += try await martlet("endpoint", "set-auth", "1", "--basic", "shop", "--password-env", "PW")
    printed += try await martlet(
      "endpoint",
      "set-auth",
      "2",
      "--bearer-file",
      folder.appendingPathComponent("token").path
    )
    printed += try await martlet("endpoint", "show", "1")
    printed += try await martlet("secret", "status")
    // As the SQL functions store it, for the dispatcher to seal: through parameters, as a driver would.
    try await database.session.withConnection { connection in
      _ = try connection.query("SELECT outbox.rotate_secret($1, secret => $2)", [.int8(2), .text(Self.plain)])
    }
    secrets.append(Self.plain)
    let log = folder.appendingPathComponent("log")
    try Data().write(to: log)
    let dispatcher = try MartletProcess(
      ["dispatch", "--log-level", "trace", "--lease", "3", "--reconcile-every", "1"] + loopback,
      environment: environment,
      errors: FileHandle(forWritingTo: log)
    )
    try await database.publish(3)
    try await eventually("they came to their ends") {
      try await database.int(
        """
        SELECT ((SELECT count(*) FROM outbox.attempt WHERE outcome = 'delivered') = 3
          AND EXISTS (SELECT FROM outbox.attempt WHERE outcome = 'failed')
          AND NOT EXISTS (SELECT FROM outbox.sealing WHERE sealed_by IS NULL))::int
        """
      ) == 1
    }
    let activity = try await database.rows("SELECT query FROM pg_stat_activity").map { $0[0] ?? "" }.joined(
      separator: "\n"
    )
    dispatcher.signal(SIGTERM)
    #expect(await dispatcher.waitForExit() == 0)
    #expect(listener.accepted("/good")[0].headers.contains { $0.value == "Basic \(secrets[3])" })
    let stored = try await database.rows(
      """
      SELECT string_agg(to_jsonb(x)::text, ' ') FROM (SELECT to_jsonb(a) FROM outbox.attempt a
        UNION ALL SELECT to_jsonb(e) FROM outbox.endpoint e UNION ALL SELECT to_jsonb(s) FROM outbox.endpoint_secret s
        UNION ALL SELECT to_jsonb(c) FROM outbox.endpoint_credential c UNION ALL SELECT to_jsonb(d) FROM outbox.delivery d
        UNION ALL SELECT to_jsonb(h) FROM outbox.endpoint_health h) x
      """
    )[0][0]!
    let serverLog = try String(contentsOf: database.server.logFile, encoding: .utf8)
    let dispatcherLog = try String(contentsOf: log, encoding: .utf8)
    #expect(dispatcherLog.contains("secrets were sealed") && dispatcherLog.contains("lease granted"))
    #expect(serverLog.contains("outbox.set_sealed_credential($1, $2, $3)"))
    for secret in secrets {
      for (place, text) in [
        ("the dispatcher's log", dispatcherLog), ("what commands print", printed), ("the server's log", serverLog),
        ("pg_stat_activity", activity), ("the tables", stored),
      ] {
        #expect(!text.contains(secret), "\(place) contains secret \(secrets.firstIndex(of: secret)!)")
      }
    }
    try await database.server.stop()
  }

  private static let plain = "whsec_cGxhaW5wbGFpbnBsYWlucGxhaW4="
}
