/// What a publisher's process does: publish whenever it is permitted, and tell what came of it.
package struct PublisherProcess: Sendable {
  private let socket: String
  private let index: Int
  private let seed: UInt64
  private let database: String

  package init(socket: String, index: Int, seed: UInt64, database: String, isBulk: Bool) {
    (self.socket, self.index, self.seed, self.database) = (socket, index, seed, database)
  }

  package func run() async throws {
    try await BulkPublisher(database: database, publisher: index, seed: seed).run(socket: socket)
  }
}
