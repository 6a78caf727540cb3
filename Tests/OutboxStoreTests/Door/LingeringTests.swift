import Testing

/// An operator's open transaction must not keep dispatchers waiting for as long as he is at lunch.
@Suite struct LingeringTests {
  @Test(arguments: [
    "SELECT outbox.pause(1)", "SELECT outbox.resume(1)", "UPDATE outbox.endpoint SET jitter = 0",
    "SELECT outbox.redrive_where()", "SELECT outbox.discard(1)", "SELECT outbox.replay(1, now() - interval '1 h')",
    "SELECT * FROM outbox.repair()", "SELECT outbox.delete_endpoint(1)",
  ])
  func whatHoldsUpDispatchersMayNotBeLeftOpen(_ statement: String) async throws {
    try await withDatabase { database in
      let client = database.client()
      try await client.addEndpoint()
      try await client.execute(
        """
        INSERT INTO outbox.dead_letter (event_id, endpoint_id, url, type, tenant, payload, created_at, attempts, reason)
        VALUES (gen_random_uuid(), 1, 'https://example.com/', 't', '', '{}', now(), 1, 'exhausted')
        """
      )
      let limit = "SELECT current_setting('idle_in_transaction_session_timeout')"
      #expect(try await client.value(limit) == "0")
      try await client.execute("BEGIN")
      try await client.execute(statement)
      #expect(try await client.value(limit) == "30s")
      try await client.execute("COMMIT")
      #expect(try await client.value(limit) == "0")
      try await client.execute("SET idle_in_transaction_session_timeout = '5s'")
      try await client.execute("BEGIN; UPDATE outbox.endpoint SET jitter = 0.1")
      #expect(try await client.value(limit) == "5s")
      try await client.execute("ROLLBACK")
    }
  }
}
