import Foundation
import OutboxStore
import Receiver
import SecretSealing
import TestSupport
import Testing
import WebhookSignature

@testable import Dispatcher

/// Secrets sealed in the database, and what a running dispatcher makes of them.
@Suite struct SealingTests {
  private let old = Keyring.newKey()
  private let new = Keyring.newKey()
  private static let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
  private static let quick = "first_delay => '20 ms', multiplier => 1, longest_delay => '20 ms'"

  private func id(_ key: String) throws -> String { try Keyring(parsing: [key]).sealingKeyID! }

  private func with<Value>(
    _ database: TestDatabase,
    keys: [String],
    log: LogBook = LogBook(),
    _ body: (Dispatcher) async throws -> Value
  ) async throws -> Value {
    let keyring = try Keyring(parsing: keys)
    return try await withDispatcher(
      database,
      logger: log.logger,
      configure: {
        $0.keyring = keyring
        $0.maintainEvery = .milliseconds(100)
      },
      body
    )
  }

  private func sealedBy(_ database: TestDatabase) async throws -> Set<String> {
    Set(try await database.rows("SELECT sealed_by FROM outbox.sealing").map { $0[0] ?? "plain" })
  }

  @Test func whatSQLStoredInPlainIsSealedAndKeysAreRotatedWithoutALostDelivery() async throws {
    let database = try await TestDatabase.make()
    // Answers 401 to what is not signed with this secret.
    let listener = try await Listener(secret: Self.secret)
    _ = try await database.addEndpoint(listener.url("/hmac"), options: "secret => '\(Self.secret)'")
    let keys = try await Listener()
    let other = try await database.addEndpoint(keys.url("/ed25519"), options: "signature => 'ed25519'")
    try await database.execute("SELECT outbox.set_basic_auth(\(other), 'shop', 'opensesame')")
    var sent = 0
    func deliverOne(_ what: String) async throws {
      sent += 1
      try await database.publish(1, first: sent)
      try await eventually("it has arrived \(what)") {
        listener.accepted("/hmac").count == sent && keys.accepted("/ed25519").count == sent
      }
    }
    try await with(database, keys: []) { _ in
      try await deliverOne("in plain")
      try await eventually("the public key is worked out") {
        try await database.int("SELECT count(public_key) FROM outbox.endpoint_key") == 1
      }
      #expect(try await sealedBy(database) == ["plain"])
    }
    try await with(database, keys: [old]) { _ in
      try await eventually("all is sealed") { try await sealedBy(database) == [id(old)] }
      try await deliverOne("sealed")
    }
    try await with(database, keys: [old, new]) { _ in try await deliverOne("while the new key is only known") }
    #expect(try await sealedBy(database) == [id(old)])
    try await with(database, keys: [new, old]) { _ in
      try await eventually("all is sealed anew") { try await sealedBy(database) == [id(new)] }
      try await deliverOne("sealed anew")
      // Made in SQL while dispatchers run, and sealed by them.
      try await database.execute("SELECT outbox.rotate_secret(\(other))")
      try await eventually("the new secret is sealed") { try await sealedBy(database) == [id(new)] }
    }
    try await with(database, keys: [new]) { _ in try await deliverOne("without the old key") }
    let stored = try await database.rows(
      "SELECT secret FROM outbox.endpoint_secret UNION ALL SELECT value FROM outbox.endpoint_credential"
    )
    for row in stored { #expect(row[0]?.hasPrefix("sealed:v1:\(try id(new)):") == true) }
    // One header for each, with signatures of all valid keys, which the published keys verify.
    let verifiers = try await database.rows(
      "SELECT public_key FROM outbox.endpoint_key WHERE kind = 'ed25519' ORDER BY id"
    )
    .map { WebhookVerifier(keys: [try VerificationKey(parsing: try #require($0[0]))]) }
    #expect(verifiers.count == 2)
    for arrival in keys.accepted("/ed25519") {
      try verifiers[0].verify(headers: arrival.headers, body: Array(arrival.body.utf8))
      #expect(arrival.headers.first { $0.name.lowercased() == "authorization" }?.value == "Basic c2hvcDpvcGVuc2VzYW1l")
    }
    let last = try #require(keys.accepted("/ed25519").last)
    try verifiers[1].verify(headers: last.headers, body: Array(last.body.utf8))
    #expect(try await database.missing() == 0)
  }

  @Test func withoutTheKeyNothingIsSentNoAttemptIsUsedUpAndTheReasonIsSeen() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener(secret: Self.secret)
    let endpoint = try await database.addEndpoint(
      listener.url(),
      options: "secret => '\(Self.secret)', max_attempts => 3, failure_threshold => 5, \(Self.quick)"
    )
    let healthy = try await Listener()
    _ = try await database.addEndpoint(healthy.url(), options: "secret => '\(Self.secret)'")
    try await with(database, keys: [old]) { _ in
      try await eventually("all is sealed") { try await sealedBy(database) == [id(old)] }
    }
    // The other one is as if nobody had sealed it.
    try await database.execute(
      "UPDATE outbox.endpoint_secret SET secret = '\(Self.secret)' WHERE endpoint_id <> \(endpoint)"
    )
    for keys in [[], [new]] {
      let log = LogBook()
      try await with(database, keys: keys, log: log) { _ in
        try await database.publish(2)
        try await eventually("the circuit is open") {
          try await database.int("SELECT count(*) FROM outbox.endpoint_health WHERE state = 'open'") == 1
        }
        try await eventually("the other endpoint has its own") {
          healthy.accepted().count.isMultiple(of: 2) && !healthy.accepted().isEmpty
        }
      }
      #expect(listener.arrivals.isEmpty)
      #expect(try await database.int("SELECT max(attempts) FROM outbox.delivery") == 0)
      #expect(try await database.int("SELECT count(*) FROM outbox.dead_letter") == 0)
      let oldID = try id(old)
      let status = try await database.rows("SELECT last_error FROM outbox.endpoint_status WHERE circuit = 'open'")
      #expect(status[0][0]?.contains("sealed under key \(oldID), which this martlet was not given") == true)
      let lines = log.text.split(separator: "\n").filter { $0.hasPrefix("error nothing can be sent to an endpoint [") }
      #expect(
        lines.count == 1 && lines[0].contains(oldID) && lines[0].contains("\"endpoint\": \(endpoint)"),
        "\(lines)"
      )
      let swept = log.text.split(separator: "\n").filter { $0.contains("whose secrets cannot be read") }
      #expect(swept.count == 1 && swept[0].contains("endpoint \(endpoint)"), "\(swept)")
      try await database.execute("SELECT outbox.resume(\(endpoint))")
    }
    #expect(try await database.missing() == 0)
    try await with(database, keys: [new, old]) { _ in
      try await eventually("all have arrived") { listener.accepted().count == 4 }
    }
    #expect(try await database.int("SELECT max(attempt) FROM outbox.attempt WHERE outcome = 'delivered'") == 1)
  }

  @Test func changedAndSwappedValuesAreNotUsed() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    for path in ["/changed", "/swapped", "/other", "/credential"] {
      let endpoint = try await database.addEndpoint(listener.url(path), options: Self.quick)
      try await database.execute("SELECT outbox.set_bearer_token(\(endpoint), 'token-\(endpoint)')")
    }
    try await with(database, keys: [old]) { _ in
      try await eventually("all is sealed") { try await sealedBy(database) == [id(old)] }
    }
    try await database.execute(
      """
      UPDATE outbox.endpoint_secret SET secret = overlay(secret PLACING
        CASE substr(secret, 40, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM 40 FOR 1) WHERE endpoint_id = 1;
      UPDATE outbox.endpoint_secret s SET secret = o.secret FROM outbox.endpoint_secret o
        WHERE s.endpoint_id IN (2, 3) AND o.endpoint_id = 5 - s.endpoint_id;
      UPDATE outbox.endpoint_credential c SET value = o.value FROM outbox.endpoint_credential o
        WHERE c.endpoint_id = 4 AND o.endpoint_id = 1;
      """
    )
    try await with(database, keys: [old]) { _ in
      try await database.publish(1)
      try await eventually("all were tried") {
        try await database.int("SELECT count(*) FROM outbox.delivery WHERE last_error LIKE '%does not open with key%'")
          == 4
      }
    }
    #expect(listener.arrivals.isEmpty)
    // Values that cannot be opened are left as they are, and hold up no others.
    #expect(try await sealedBy(database) == [id(old)])
  }

  @Test func aSecretChangedWhileItIsSealedIsNotLost() async throws {
    let database = try await TestDatabase.make()
    _ = try await database.addEndpoint("http://127.0.0.1:1/", options: "secret => '\(Self.secret)'")
    let keyring = try Keyring(parsing: [old])
    let replaced = try await database.session.withConnection { connection in
      let store = OutboxStore(connection)
      let read = try store.unsealedSecrets(keyID: nil, after: (0, 0), limit: 10)
      #expect(read.isEmpty, "nothing is sealed, and without a key only what is sealed is looked at")
      let secrets = try store.unsealedSecrets(keyID: keyring.sealingKeyID, after: (0, 0), limit: 10)
      try connection.execute("UPDATE outbox.endpoint_secret SET secret = 'whsec_bmV3ZXJuZXdlcm5ld2VybmV3ZXI='")
      return try store.replace(
        secrets.map { ($0, Sensitive("sealed:v1:00000000:" + String(repeating: "A", count: 80)), nil) }
      )
    }
    #expect(replaced == 0)
    #expect(
      try await database.rows("SELECT secret FROM outbox.endpoint_secret") == [["whsec_bmV3ZXJuZXdlcm5ld2VybmV3ZXI="]]
    )
  }

  @Test func moreThanABatchIsSealedInOneSweep() async throws {
    let database = try await TestDatabase.make()
    try await database.execute(
      """
      SELECT outbox.add_endpoint('https://example.com/', signature => CASE WHEN n % 2 = 0 THEN 'hmac' ELSE 'ed25519' END)
      FROM generate_series(1, 450) n;
      SELECT outbox.set_bearer_token(id, 'token') FROM outbox.endpoint;
      """
    )
    let keyring = try Keyring(parsing: [old])
    let sweep = { try await database.session.withConnection { try SealingSweep(keyring).run(OutboxStore($0)) } }
    var expected = SealingSweep.Report()
    expected.sealed = 900
    expected.publicKeys = 225
    #expect(try await sweep() == expected)
    #expect(try await sweep() == SealingSweep.Report())
    #expect(try await database.int("SELECT count(*) FROM outbox.sealing WHERE sealed_by = '\(try id(old))'") == 900)
    #expect(try await database.int("SELECT count(DISTINCT public_key) FROM outbox.endpoint_key") == 225)
  }

  /// By the second, from the timestamp that was signed.
  @Test func anExpiredSecretStopsSigningThoughNobodyTouchesTheEndpoint() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    let endpoint = try await database.addEndpoint(listener.url(), options: "signature => 'ed25519', \(Self.quick)")
    func signatures(_ arrival: Listener.Arrival) -> [String] {
      arrival.headers.first { $0.name.lowercased() == "webhook-signature" }?.value.split(separator: " ").map(
        String.init
      ) ?? []
    }
    func seconds(_ arrival: Listener.Arrival) -> Int {
      arrival.headers.first { $0.name.lowercased() == "webhook-timestamp" }.flatMap { Int($0.value) } ?? 0
    }
    try await withDispatcher(database) { _ in
      try await database.publish(1)
      try await eventually("the first has arrived") { listener.arrivals.count == 1 }
      try await database.execute("SELECT outbox.rotate_secret(\(endpoint), signature => 'hmac')")
      try await database.publish(1)
      try await eventually("the second has arrived") { listener.arrivals.count == 2 }
      try await database.execute(
        """
        UPDATE outbox.endpoint_secret SET expires_at = clock_timestamp() + interval '2 s' WHERE expires_at IS NOT NULL
        """
      )
      let version = try await database.int("SELECT version FROM outbox.endpoint")
      let end = try await database.int("SELECT ceil(extract(epoch FROM min(expires_at))) FROM outbox.endpoint_secret")
      try await eventually("the overlap has passed") {
        try await database.publish(1)
        return listener.arrivals.contains { seconds($0) > end }
      }
      for arrival in listener.arrivals.dropFirst() {
        #expect(signatures(arrival).count == (seconds(arrival) < end ? 2 : 1), "at \(seconds(arrival)), end \(end)")
        #expect(signatures(arrival).first?.hasPrefix("v1,") == true)
      }
      #expect(
        listener.arrivals.dropFirst().contains { signatures($0).count == 2 && signatures($0)[1].hasPrefix("v1a,") }
      )
      #expect(try await database.int("SELECT version FROM outbox.endpoint") == version)

      // When the last one has ended, nothing is sent: neither unsigned nor with an ended key.
      try await database.execute(
        "UPDATE outbox.endpoint_secret SET expires_at = clock_timestamp() WHERE expires_at IS NULL"
      )
      try await eventually("all is recorded") { try await database.isSettled() }
      let before = listener.arrivals.count
      try await database.publish(1)
      try await eventually("it waits") {
        try await database.int(
          "SELECT count(*) FROM outbox.delivery WHERE last_error LIKE '%no valid secret%' AND attempts = 0"
        ) == 1
      }
      #expect(listener.arrivals.count == before)
    }
  }
}
