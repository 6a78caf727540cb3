import Postgres

extension OutboxStore {
  /// What the endpoint's transform makes of the event: JSON text, UTF-8.
  package func transformed(_ delivery: DeliveryKey) throws(PostgresError) -> [UInt8] {
    let rows = try connection.query(
      "SELECT outbox.transformed($1, $2)",
      [.int8(delivery.endpoint), .uuid(delivery.event)]
    )
    return Array(try rows.required(rows.json(0, 0), 0))
  }
}
