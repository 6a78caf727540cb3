import HTTPDelivery
import OutboxStore
import Postgres

/// What the threads of a dispatcher ask the database. `OutboxStore` asks PostgreSQL; simulations have a model of it.
protocol DispatchStore {
  func snapshot() throws(PostgresError) -> String
  func watch(_ seen: String?, every pause: Duration, upTo longest: Duration) throws(PostgresError) -> String
  func waiting() throws(PostgresError) -> [(endpoint: Int64, dueIn: Duration)]
  func changed(since known: [(id: Int64, version: Int64)]) throws(PostgresError) -> [Int64]
  func endpoints(_ ids: [Int64]) throws(PostgresError) -> [EndpointSettings]
  func cut(
    dispatcher: Int64,
    events: Int,
    direct: Int,
    perEndpoint: Int,
    bytes: Int,
    busy: [Int64],
    slots: [Int],
    resyncs: Int?
  )
    throws(PostgresError) -> Cut?
  func claim(dispatcher: Int64, endpoints: [Int64], slots: [Int], floors: [Timestamp?], resyncs: Int?)
    throws(PostgresError)
    -> Claim
  func record(dispatcher: Int64, _ outcomes: [Outcome], finishedBatches: [Int64], again: Bool, resyncs: Int?)
    throws(PostgresError)
    -> [EndpointChange]
  func resync(dispatcher: Int64, held: [DeliveryKey], batches: [Int64?]?, number: Int?) throws(PostgresError) -> Int64
  func register(name: String, host: String, pid: Int32, version: String, lease: Duration) throws(PostgresError) -> Int64
  func heartbeat(dispatcher: Int64, lease: Duration) throws(PostgresError) -> Bool
  func serverTime() throws(PostgresError) -> Double
  func recover(caller: Int64?, settle: Duration) throws(PostgresError) -> [OutboxStore.Recovered]
  func transformed(_ delivery: DeliveryKey) throws(PostgresError) -> [UInt8]
}

extension OutboxStore: DispatchStore {}

/// Who carries out the requests that the desk lets go: the HTTP engine.
protocol RequestTaker: Sendable {
  func submit(_ requests: [HTTPRequest])
}

extension HTTPEngine: RequestTaker {}
