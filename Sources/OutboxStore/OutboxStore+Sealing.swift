import Postgres

/// A signing secret as it is stored.
package struct StoredSecret: Sendable {
  package var endpoint: Int64
  package var id: Int64
  package var text: Sensitive
  package var isEd25519: Bool
  package var publicKey: String?
}

/// A credential as it is stored.
package struct StoredCredential: Sendable {
  package var endpoint: Int64
  package var kind: String
  package var value: Sensitive
}

extension OutboxStore {
  /// Keeps others who seal out until the transaction ends, so that two do not wait for each other's rows; and objects of
  /// others out of it, because what follows reads secrets, also on the command line.
  package func beginSealing() throws(PostgresError) {
    try connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    _ = try connection.query("SELECT pg_advisory_xact_lock(1296126548, 4)")
  }

  /// Secrets not sealed under the key named, or without their public half, after a place in the order of the table.
  package func unsealedSecrets(
    keyID: String?,
    after place: (endpoint: Int64, id: Int64),
    limit: Int
  ) throws(PostgresError) -> [StoredSecret] {
    let rows = try connection.query(
      "SELECT endpoint_id, id, secret, kind = 'ed25519', public_key FROM outbox.unsealed_secrets($1, $2, $3, $4)",
      [.text(keyID), .int8(place.endpoint), .int8(place.id), .int4(Int32(clamping: limit))]
    )
    var secrets: [StoredSecret] = []
    for row in 0..<rows.count {
      secrets.append(
        StoredSecret(
          endpoint: try rows.required(rows.int64(row, 0), 0),
          id: try rows.required(rows.int64(row, 1), 1),
          text: Sensitive(try rows.required(rows.string(row, 2), 2)),
          isEd25519: try rows.required(rows.bool(row, 3), 3),
          publicKey: rows.string(row, 4)
        )
      )
    }
    return secrets
  }

  /// Credentials not sealed under the key named, after a place in the order of the table.
  package func unsealedCredentials(
    keyID: String?,
    after place: (endpoint: Int64, kind: String),
    limit: Int
  ) throws(PostgresError) -> [StoredCredential] {
    let rows = try connection.query(
      "SELECT endpoint_id, kind, value FROM outbox.unsealed_credentials($1, $2, $3, $4)",
      [.text(keyID), .int8(place.endpoint), .text(place.kind), .int4(Int32(clamping: limit))]
    )
    var credentials: [StoredCredential] = []
    for row in 0..<rows.count {
      credentials.append(
        StoredCredential(
          endpoint: try rows.required(rows.int64(row, 0), 0),
          kind: try rows.required(rows.string(row, 1), 1),
          value: Sensitive(try rows.required(rows.string(row, 2), 2))
        )
      )
    }
    return credentials
  }

  /// Puts other texts, and public halves that were missing, in the place of secrets, as far as those are still what they
  /// were. Returns how many.
  package func replace(_ changes: [(old: StoredSecret, text: Sensitive, publicKey: String?)]) throws(PostgresError)
    -> Int
  {
    let rows = try connection.query(
      """
      WITH changed AS (
        UPDATE outbox.endpoint_secret s SET secret = u.new, public_key = coalesce(u.public_key, s.public_key)
        FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[]) u(endpoint, id, old, new, public_key)
        WHERE s.endpoint_id = u.endpoint AND s.id = u.id AND s.secret = u.old
        RETURNING 1
      ) SELECT count(*) FROM changed
      """,
      [
        .int8Array(changes.map(\.old.endpoint)), .int8Array(changes.map(\.old.id)),
        .textArray(changes.map(\.old.text.revealed)), .textArray(changes.map(\.text.revealed)),
        .textArray(changes.map(\.publicKey)),
      ]
    )
    return Int(try rows.required(rows.int64(0, 0), 0))
  }

  /// Puts other texts in the place of credentials, as far as those are still what they were. Returns how many.
  package func replace(_ changes: [(old: StoredCredential, value: Sensitive)]) throws(PostgresError) -> Int {
    let rows = try connection.query(
      """
      WITH changed AS (
        UPDATE outbox.endpoint_credential c SET value = u.new
        FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) u(endpoint, kind, old, new)
        WHERE c.endpoint_id = u.endpoint AND c.kind = u.kind AND c.value = u.old
        RETURNING 1
      ) SELECT count(*) FROM changed
      """,
      [
        .int8Array(changes.map(\.old.endpoint)), .textArray(changes.map(\.old.kind)),
        .textArray(changes.map(\.old.value.revealed)), .textArray(changes.map(\.value.revealed)),
      ]
    )
    return Int(try rows.required(rows.int64(0, 0), 0))
  }
}
