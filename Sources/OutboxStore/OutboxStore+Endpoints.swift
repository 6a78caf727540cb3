import Postgres

/// An endpoint's settings, as delivery needs them.
package struct EndpointSettings: Sendable {
  package var id: Int64
  package var version: Int64
  package var url: String
  package var state: String
  package var ordered: Bool
  package var format: String
  package var transform: String?
  /// JSON object of header names and values, validated by the database.
  package var headers: [UInt8]
  package var timeout: Duration
  package var firstDelay: Duration
  package var multiplier: Double
  package var longestDelay: Duration
  package var jitter: Double
  package var maxAttempts: Int
  package var maxAge: Duration
  package var maxInFlight: Int
  /// The pause before each further attempt, instead of the four above that say when; nil: exponential backoff.
  package var retryDelays: [Duration]?
  /// Deliveries a second, which claims enforce.
  package var rateLimit: Double?
  /// Secrets valid now, the newest first.
  package var secrets: [Secret]
  package var credentials: [Credential]

  package struct Secret: Sendable, Equatable {
    /// In the form of Standard Webhooks, or sealed.
    package var text: Sensitive
    /// Microseconds since 1970, by the database's clock; nil if it does not end.
    package var expiresAt: Int64?
  }

  /// What it is authenticated with, beside signatures.
  package struct Credential: Sendable, Equatable {
    package var kind: String
    /// JSON, or sealed.
    package var value: Sensitive
  }
}

extension OutboxStore {
  /// Which of the endpoints have other settings by now than in the version named, or are gone.
  package func changed(since known: [(id: Int64, version: Int64)]) throws(PostgresError) -> [Int64] {
    let rows = try connection.query(
      """
      SELECT k.id FROM unnest($1::bigint[], $2::bigint[]) k(id, version)
      LEFT JOIN outbox.endpoint e ON e.id = k.id WHERE e.version IS DISTINCT FROM k.version
      """,
      [.int8Array(known.map(\.id)), .int8Array(known.map(\.version))]
    )
    var changed: [Int64] = []
    for row in 0..<rows.count { changed.append(try rows.required(rows.int64(row, 0), 0)) }
    return changed
  }

  /// Settings and secrets of the endpoints named; those that do not exist are left out.
  package func endpoints(_ ids: [Int64]) throws(PostgresError) -> [EndpointSettings] {
    let rows = try connection.query(
      """
      SELECT e.id, e.version, e.url, e.state, e.format, e.headers,
        (extract(epoch FROM e.timeout) * 1000)::bigint, (extract(epoch FROM e.first_delay) * 1000)::bigint, e.multiplier,
        (extract(epoch FROM e.longest_delay) * 1000)::bigint, e.jitter, e.max_attempts,
        (extract(epoch FROM e.max_age) * 1000)::bigint, e.max_in_flight,
        e.ordered, e.transform,
        (SELECT string_agg(s.secret || ' ' || CASE WHEN isfinite(s.expires_at) THEN (extract(epoch FROM s.expires_at) * 1000000)::bigint::text ELSE '' END,
           E'\\n' ORDER BY s.id DESC) FROM outbox.endpoint_secret s
         WHERE s.endpoint_id = e.id AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())),
        -- A line break in JSON is white space.
        (SELECT string_agg(c.kind || ' ' || translate(c.value, E'\\r\\n', '  '), E'\\n' ORDER BY c.kind) FROM outbox.endpoint_credential c
         WHERE c.endpoint_id = e.id),
        (SELECT array_agg((extract(epoch FROM d.pause) * 1000)::bigint ORDER BY d.ord)
         FROM unnest(e.retry_delays) WITH ORDINALITY d(pause, ord)),
        e.rate_limit
      FROM outbox.endpoint e WHERE e.id = ANY ($1)
      """,
      [.int8Array(ids)]
    )
    func milliseconds(_ row: Int, _ column: Int) throws(PostgresError) -> Duration {
      .milliseconds(try rows.required(rows.int64(row, column), column))
    }
    var endpoints: [EndpointSettings] = []
    for row in 0..<rows.count {
      endpoints.append(
        EndpointSettings(
          id: try rows.required(rows.int64(row, 0), 0),
          version: try rows.required(rows.int64(row, 1), 1),
          url: try rows.required(rows.string(row, 2), 2),
          state: try rows.required(rows.string(row, 3), 3),
          ordered: try rows.required(rows.bool(row, 14), 14),
          format: try rows.required(rows.string(row, 4), 4),
          transform: rows.string(row, 15),
          headers: Array(try rows.required(rows.json(row, 5), 5)),
          timeout: try milliseconds(row, 6),
          firstDelay: try milliseconds(row, 7),
          multiplier: try rows.required(rows.double(row, 8), 8),
          longestDelay: try milliseconds(row, 9),
          jitter: try rows.required(rows.double(row, 10), 10),
          maxAttempts: Int(try rows.required(rows.int64(row, 11), 11)),
          maxAge: try milliseconds(row, 12),
          maxInFlight: Int(try rows.required(rows.int64(row, 13), 13)),
          retryDelays: try rows.int64Array(row, 18)?.map { .milliseconds($0) },
          rateLimit: try rows.double(row, 19),
          secrets: Self.pairs(rows.string(row, 16)).map { .init(text: Sensitive($0), expiresAt: Int64($1)) },
          credentials: Self.pairs(rows.string(row, 17)).map { .init(kind: $0, value: Sensitive($1)) }
        )
      )
    }
    return endpoints
  }

  /// Lines of a word and a rest.
  private static func pairs(_ lines: String?) -> [(String, String)] {
    (lines ?? "").split(separator: "\n").map { line in
      let word = line.prefix { $0 != " " }
      return (String(word), String(line.dropFirst(word.count + 1)))
    }
  }
}
