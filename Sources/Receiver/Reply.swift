/// How a receiver answers one delivery.
package struct Reply: Sendable {
  /// The HTTP status, 200 to 599; anything else is answered as 500, because it is not an answer a client can use.
  package var status: Int
  /// How long to wait before answering.
  package var delay: Duration
  package var headers: [String: String]
  package var body: String
  /// Never answer: hold the connection until the client gives up or the receiver stops. Everything else is ignored.
  package var hangs: Bool

  package init(status: Int, delay: Duration = .zero, headers: [String: String] = [:], body: String = "") {
    self.status = status
    self.delay = delay
    self.headers = headers
    self.body = body
    hangs = false
  }

  package static let ok = Reply(status: 200)

  /// No answer at all, as from a receiver that is stuck.
  package static let hang: Reply = {
    var reply = Reply(status: 503)
    reply.hangs = true
    return reply
  }()
}
