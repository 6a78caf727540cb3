/// The demo's endpoints, as the database and the receivers know them.
struct Endpoints: Sendable {
  struct Entry: Sendable {
    var target: Target
    var id: Int64
    /// The event types it is subscribed to: one, or `*`.
    var types: String
    var inbox: Inbox
  }

  var bodies: Bodies
  var all: [Entry] = []

  func id(_ target: Target) -> Int64 { all[target.rawValue].id }
}
