import Receiver
import TestSupport
import Testing

@testable import Dispatcher

@Suite struct FormatTests {
  private static let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

  /// One event to an endpoint of each format: body and headers, by path.
  private func deliver(_ publish: String) async throws -> (database: TestDatabase, arrivals: [String: Sent]) {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    let formats = ["standard", "cloudevents", "cloudevents-binary", "raw", "classic"]
    for format in formats {
      _ = try await database.addEndpoint(
        listener.url("/\(format)"),
        options: "format => '\(format)', headers => '{\"X-Shop\": \"one\"}'"
      )
    }
    try await withDispatcher(database) { _ in
      try await database.execute("SELECT \(publish)")
      try await eventually("all have arrived") { listener.arrivals.count >= formats.count }
    }
    let sent = listener.arrivals.map { ($0.path, Sent(body: $0.body, headers: $0.headers)) }
    return (database, Dictionary(uniqueKeysWithValues: sent))
  }

  struct Sent {
    var body: String
    var headers: [(name: String, value: String)]
    subscript(name: String) -> String? { headers.first { $0.name.lowercased() == name }?.value }
  }

  @Test func formatsHaveTheShapesTheyPromise() async throws {
    let (database, arrivals) = try await deliver(#"outbox.publish('order.paid', '{"id": 7}', key => 'a"b% ü')"#)
    let id = try await database.rows("SELECT id FROM outbox.event")[0][0]!
    let at = try await database.rows(
      "SELECT to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM outbox.event"
    )[0][0]!
    let expected = [
      "/standard": #"{"type":"order.paid","timestamp":"\#(at)","data":{"id": 7}}"#,
      "/cloudevents":
        #"{"specversion":"1.0","id":"\#(id)","source":"urn:martlet:outbox","type":"order.paid","subject":"a\"b% ü","time":"\#(at)","datacontenttype":"application/json","data":{"id": 7}}"#,
      "/cloudevents-binary": #"{"id": 7}"#,
      "/raw": #"{"id": 7}"#,
      "/classic": #"{"event":"order.paid","data":{"id": 7}}"#,
    ]
    #expect(arrivals.mapValues(\.body) == expected)
    for (path, sent) in arrivals {
      #expect(sent["webhook-id"] == id)
      #expect(sent["x-shop"] == "one")
      #expect(sent["expect"] == nil && sent["traceparent"] == nil)
      #expect(sent["content-type"] == (path == "/cloudevents" ? "application/cloudevents+json" : "application/json"))
      #expect((sent["ce-id"] != nil) == (path == "/cloudevents-binary"))
    }
    let binary = try #require(arrivals["/cloudevents-binary"])
    let attributes = ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-subject"].map { binary[$0] }
    #expect(attributes == ["1.0", id, "urn:martlet:outbox", "order.paid", at, "a%22b%25%20%C3%BC"])
  }

  @Test func metadataCarriesTheTraceAndTheSource() async throws {
    let (_, arrivals) = try await deliver(
      """
      outbox.publish('order.paid', '{}', metadata => '{"traceparent": "\(Self.trace)", "tracestate": "shop=1,x=2",
        "source": "https://shop.example/ü"}')
      """
    )
    for (_, sent) in arrivals {
      #expect(sent["traceparent"] == Self.trace)
      #expect(sent["tracestate"] == "shop=1,x=2")
    }
    #expect(arrivals["/cloudevents-binary"]?["ce-source"] == "https://shop.example/%C3%BC")
    #expect(arrivals["/cloudevents"]?.body.contains(#""source":"https://shop.example/ü""#) == true)
  }

  @Test(arguments: [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\\r\\nX-Evil: 1", "4bf92f3577b34da6a3ce929d0e0e4736", "",
    "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
    "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  ])
  func whatIsNoTraceIsNotPassedOn(_ traceparent: String) async throws {
    let (_, arrivals) = try await deliver(
      #"outbox.publish('order.paid', '{}', metadata => '{"traceparent": "\#(traceparent)", "tracestate": "a\nb"}')"#
    )
    for (_, sent) in arrivals {
      #expect(sent["traceparent"] == nil && sent["tracestate"] == nil && sent["x-evil"] == nil)
    }
  }
}
