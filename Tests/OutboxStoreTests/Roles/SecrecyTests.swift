import Foundation
import Postgres
import Testing

/// Secrets and credentials are write-only: no role but the dispatcher's gets one back, by whatever statement.
@Suite struct SecrecyTests {
  private static let password = "pa55word-of-the-test"

  private func withSecrets(_ body: (Database, Int64) async throws -> Void) async throws {
    try await withDatabase { database in
      let owner = database.client()
      let endpoint = try await owner.addEndpoint("signature => 'ed25519'")
      try await owner.execute("SELECT outbox.set_basic_auth(\(endpoint), 'shop', '\(Self.password)')")
      try await body(database, endpoint)
    }
  }

  /// Ways to get at a column one may not select.
  private static let attempts = [
    "SELECT secret FROM outbox.endpoint_secret", "SELECT * FROM outbox.endpoint_secret",
    "SELECT s FROM outbox.endpoint_secret s", "SELECT to_jsonb(s) FROM outbox.endpoint_secret s",
    "SELECT length(secret) FROM outbox.endpoint_secret", "SELECT id FROM outbox.endpoint_secret ORDER BY secret",
    "SELECT id FROM outbox.endpoint_secret WHERE secret LIKE 'whsk_A%'",
    "SELECT id FROM outbox.endpoint_secret GROUP BY id, secret", "TABLE outbox.endpoint_secret",
    "UPDATE outbox.endpoint_secret SET expires_at = now() RETURNING secret",
    "UPDATE outbox.endpoint_secret SET expires_at = CASE WHEN secret > 'x' THEN now() END",
    "UPDATE outbox.endpoint_secret SET public_key = secret", "UPDATE outbox.endpoint_secret SET endpoint_id = 1",
    "INSERT INTO outbox.endpoint_secret (endpoint_id, secret) SELECT 1, secret FROM outbox.endpoint_secret",
    """
    INSERT INTO outbox.endpoint_secret (endpoint_id, secret) VALUES (1, outbox.new_secret())
    ON CONFLICT (endpoint_id, id) DO UPDATE SET expires_at = now() RETURNING secret
    """,
    "COPY outbox.endpoint_secret TO STDOUT", "COPY outbox.endpoint_secret (secret) TO STDOUT",
    "CREATE TEMP TABLE t AS SELECT * FROM outbox.endpoint_secret",
    "SELECT * FROM outbox.unsealed_secrets(NULL, 0, 0, 9)",
    "SELECT value FROM outbox.endpoint_credential", "SELECT * FROM outbox.endpoint_credential",
    "SELECT c FROM outbox.endpoint_credential c", "SELECT to_jsonb(c) FROM outbox.endpoint_credential c",
    "SELECT kind FROM outbox.endpoint_credential WHERE value LIKE '%pa55%'",
    "SELECT kind FROM outbox.endpoint_credential ORDER BY value", "TABLE outbox.endpoint_credential",
    "UPDATE outbox.endpoint_credential SET value = 'x' RETURNING value",
    "UPDATE outbox.endpoint_credential SET value = value || 'x'",
    "UPDATE outbox.endpoint_credential SET kind = 'bearer'",
    "UPDATE outbox.endpoint_credential SET endpoint_id = 2",
    "UPDATE outbox.endpoint_credential SET updated_at = CASE WHEN value > 'x' THEN now() ELSE created_at END",
    """
    INSERT INTO outbox.endpoint_credential (endpoint_id, kind, value) VALUES (1, 'basic', '{}')
    ON CONFLICT (endpoint_id, kind) DO UPDATE SET value = EXCLUDED.value RETURNING value
    """,
    """
    INSERT INTO outbox.endpoint_credential (endpoint_id, kind, value) VALUES (1, 'basic', '{}')
    ON CONFLICT (endpoint_id, kind) DO UPDATE SET updated_at = endpoint_credential.created_at
    WHERE endpoint_credential.value LIKE '%pa55%'
    """,
    "DELETE FROM outbox.endpoint_credential RETURNING value", "DELETE FROM outbox.endpoint_credential WHERE value > ''",
    "COPY outbox.endpoint_credential TO STDOUT", "SELECT * FROM outbox.unsealed_credentials(NULL, 0, '', 9)",
    "MERGE INTO outbox.endpoint_credential c USING (SELECT 1) s ON c.value > '' WHEN MATCHED THEN DELETE",
    "ALTER TABLE outbox.endpoint_credential ADD x int", "CREATE VIEW outbox.v AS SELECT 1",
    "CREATE TRIGGER t BEFORE UPDATE ON outbox.endpoint_credential FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE POLICY p ON outbox.endpoint_credential", "ALTER TABLE outbox.endpoint_credential DISABLE TRIGGER ALL",
    "SELECT value FROM ONLY outbox.endpoint_credential", "SELECT secret FROM outbox.endpoint_key",
    "SELECT value FROM outbox.sealing", "EXPLAIN (ANALYZE, VERBOSE) SELECT secret FROM outbox.endpoint_secret",
    "SELECT secret::int FROM outbox.endpoint_secret", "SELECT value::int FROM outbox.endpoint_credential",
    "SELECT id FROM outbox.endpoint_secret WHERE 1 / (length(secret) - 49) > 0",
    "DELETE FROM outbox.endpoint_credential WHERE value::int > 0",
  ]

  @Test(arguments: ["outbox_operator", "outbox_publisher"])
  func noStatementGivesASecretBack(role: String) async throws {
    try await withSecrets { database, endpoint in
      let client = database.client()
      try await client.becomes(role)
      for statement in Self.attempts {
        let error = try await client.refusal(statement)
        // No privilege, not the owner, no such column in the view; MERGE is not in PostgreSQL 14.
        #expect(["42501", "42703", "42601"].contains(error.sqlState), "\(statement): \(error)")
        let all = [error.message, error.detail, error.hint, error.context].compactMap { $0 }.joined(separator: " ")
        #expect(!all.contains(Self.password), "\(statement)")
      }
      let owner = database.client()
      #expect(try await owner.int("SELECT count(*) FROM outbox.endpoint_credential WHERE value LIKE '%pa55%'") == 1)
    }
  }

  /// Every relation and every function without arguments that an operator may use, and what he sees in it.
  @Test func whatAnOperatorCanReadContainsNoSecret() async throws {
    try await withSecrets { database, endpoint in
      let owner = database.client()
      let secrets = try await owner.column("SELECT secret FROM outbox.endpoint_secret") + [Self.password]
      let client = database.client()
      try await client.becomes("outbox_operator")
      let relations = try await owner.column(
        """
        SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'outbox'::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND has_table_privilege('outbox_operator', c.oid, 'SELECT') ORDER BY 1
        """
      )
      #expect(relations.contains("outbox.endpoint_key") && relations.contains("outbox.endpoint_status"))
      for relation in relations {
        let text = try await client.column("SELECT to_jsonb(x)::text FROM \(relation) x").joined()
        for secret in secrets { #expect(!text.contains(secret), "\(relation)") }
      }
      for statement in [
        "SELECT to_jsonb(x)::text FROM outbox.reconcile() x", "SELECT outbox.pause(\(endpoint))::text",
        "SELECT coalesce(outbox.rotate_secret(\(endpoint)), '')", "SELECT to_jsonb(s)::text FROM pg_stats s",
      ] {
        let text = try await client.column(statement).joined()
        for secret in secrets { #expect(!text.contains(secret), "\(statement)") }
      }
      #expect(try await client.rows("SELECT kind FROM outbox.endpoint_credential") == [["basic"]])
      #expect(
        try await client.rows("SELECT what, kind, sealed_by FROM outbox.sealing WHERE expires_at IS NULL ORDER BY 1")
          == [["credential", "basic", nil], ["secret", "ed25519", nil]]
      )
    }
  }

  /// Changing where an endpoint is would show its credentials to whoever is there.
  @Test func credentialsDoNotFollowAnEndpointToAnotherHost() async throws {
    try await withSecrets { database, endpoint in
      let client = database.client()
      try await client.becomes("outbox_operator")
      for url in ["https://evil.example/hook", "http://example.com/hook", "https://example.com:8443/hook"] {
        let error = try await client.refusal("UPDATE outbox.endpoint SET url = '\(url)' WHERE id = \(endpoint)")
        #expect(error.sqlState == "55006" && error.hint?.contains("clear_credential") == true, "\(error)")
      }
      try await client.execute("UPDATE outbox.endpoint SET url = 'HTTPS://EXAMPLE.com/other?x' WHERE id = \(endpoint)")
      #expect(try await client.int("SELECT outbox.clear_credential(\(endpoint))") == 1)
      try await client.execute("UPDATE outbox.endpoint SET url = 'https://elsewhere.example/' WHERE id = \(endpoint)")
    }
  }

  @Test func operatorSetsReplacesAndClears() async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.becomes("outbox_operator")
      let endpoint = try await client.addEndpoint()
      let kinds = "SELECT kind FROM outbox.endpoint_credential ORDER BY kind"
      let version = "SELECT version FROM outbox.endpoint WHERE id = \(endpoint)"
      var before = try await client.int(version)
      for (statement, expected) in [
        ("set_basic_auth(\(endpoint), 'a', 'b')", ["basic"]), ("set_basic_auth(\(endpoint), 'a', 'c')", ["basic"]),
        ("set_bearer_token(\(endpoint), 't')", ["bearer"]),
        (
          "set_client_certificate(\(endpoint), '\(CredentialInputTests.certificate)', '\(CredentialInputTests.key)')",
          ["bearer", "client_certificate"]
        ),
        ("set_oauth2(\(endpoint), 'https://auth.example/token', 'a', 'b')", ["client_certificate", "oauth2"]),
        (
          "set_sealed_credential(\(endpoint), 'basic', 'sealed:v1:00000000:\(String(repeating: "A", count: 80))')",
          ["basic", "client_certificate"]
        ),
        ("clear_credential(\(endpoint), 'basic')", ["client_certificate"]), ("clear_credential(\(endpoint))", []),
      ] {
        _ = try await client.rows("SELECT outbox.\(statement)")
        #expect(try await client.column(kinds) == expected, "\(statement)")
        let after = try await client.int(version)
        #expect(after > before, "\(statement): dispatchers must hear of it")
        before = after
      }
    }
  }

  @Test func publisherSetsNothing() async throws {
    try await withSecrets { database, endpoint in
      let client = database.client()
      try await client.becomes("outbox_publisher")
      for call in [
        "set_basic_auth(1, 'a', 'b')", "set_bearer_token(1, 't')", "set_client_certificate(1, 'a', 'b')",
        "set_oauth2(1, 'a', 'b', 'c')", "set_sealed_credential(1, 'a', 'b')", "clear_credential(1)", "new_secret()",
        "put_credential(1, 'a', 'b')", "set_plain_credential(1, 'a', '{}')", "sealed_by('a')",
      ] {
        #expect(try await client.refusal("SELECT outbox.\(call)").sqlState == "42501", "\(call)")
      }
      for relation in ["endpoint_key", "sealing", "endpoint_credential"] {
        #expect(try await client.refusal("SELECT 1 FROM outbox.\(relation)").sqlState == "42501")
      }
    }
  }

  @Test func dispatcherReadsAndSealsAndSetsNothing() async throws {
    try await withSecrets { database, endpoint in
      let client = database.client()
      try await client.becomes("outbox_dispatcher")
      let settings = try await client.store { try $0.endpoints([endpoint])[0] }
      #expect(settings.credentials.first?.value.revealed.contains(Self.password) == true)
      #expect(!"\(settings)".contains(Self.password) && !"\(settings)".contains("whsk_"))
      var dumped = ""
      dump(settings, to: &dumped)
      #expect(!dumped.contains(Self.password) && !dumped.contains("whsk_"))
      for statement in [
        "SELECT outbox.set_bearer_token(1, 't')", "DELETE FROM outbox.endpoint_credential",
        "INSERT INTO outbox.endpoint_credential (endpoint_id, kind, value) VALUES (1, 'bearer', '{}')",
        "DELETE FROM outbox.endpoint_secret", "UPDATE outbox.endpoint_credential SET kind = 'bearer'",
        "UPDATE outbox.endpoint_secret SET endpoint_id = 2", "UPDATE outbox.endpoint_secret SET expires_at = NULL",
      ] {
        #expect(try await client.refusal(statement).sqlState == "42501", "\(statement)")
      }
    }
  }
}
