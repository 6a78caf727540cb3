import Foundation
import Postgres

/// Every statement Martlet sends to schema `outbox`, one method each, and the decoding of its rows. Borrowed for as long as
/// a connection is in hand; all calls block.
package struct OutboxStore {
  package let connection: Connection

  package init(_ connection: Connection) { self.connection = connection }
}

/// An event of the log, with all that building a request takes.
package struct OutboxEvent: Sendable {
  package var id: UUID
  package var type: String
  package var tenant: String
  package var key: String?
  package var createdAt: Timestamp
  /// JSON text, UTF-8.
  package var payload: [UInt8]
  /// `traceparent` and `tracestate` of its metadata, as the application wrote them (W3C Trace Context).
  package var traceparent: String?
  package var tracestate: String?
  /// `source` of its metadata: the CloudEvents attribute.
  package var source: String?

  package init(id: UUID, type: String, tenant: String = "", key: String? = nil, createdAt: Timestamp, payload: [UInt8])
  {
    self.id = id
    self.type = type
    self.tenant = tenant
    self.key = key
    self.createdAt = createdAt
    self.payload = payload
  }
}

extension ResultSet {
  /// What ``event(_:from:)`` reads of a row of `outbox.cut` or `outbox.claim`.
  static let eventColumns = """
    event_id, type, tenant, key, created_at, payload, \
    metadata ->> 'traceparent', metadata ->> 'tracestate', metadata ->> 'source'
    """

  /// Reads the columns of an event that begin at `column`.
  func event(_ row: Int, from column: Int) throws(PostgresError) -> OutboxEvent {
    var event = OutboxEvent(
      id: try required(uuid(row, column), column),
      type: try required(string(row, column + 1), column + 1),
      tenant: try required(string(row, column + 2), column + 2),
      key: string(row, column + 3),
      createdAt: try required(timestamp(row, column + 4), column + 4),
      payload: Array(try required(json(row, column + 5), column + 5))
    )
    event.traceparent = string(row, column + 6)
    event.tracestate = string(row, column + 7)
    event.source = string(row, column + 8)
    return event
  }
}
