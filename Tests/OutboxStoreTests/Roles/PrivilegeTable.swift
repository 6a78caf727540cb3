/// Who may do what: objects with the same rights a paragraph, a role a line. What is not mentioned for a role is refused.
enum PrivilegeTable {
  static let parsed: [String: [String: String]] = {
    var table: [String: [String: String]] = [:]
    for paragraph in text.components(separatedBy: "\n\n") {
      let lines = paragraph.split(separator: "\n")
      var roles: [String: String] = [:]
      for line in lines where line.hasPrefix("  ") {
        let parts = line.dropFirst(2).split(separator: ":", maxSplits: 1)
        roles[String(parts[0])] = String(parts[1].dropFirst())
      }
      for object in lines.filter({ !$0.hasPrefix("  ") }).flatMap({ $0.split(separator: " ") }) {
        precondition(table[String(object)] == nil, "\(object) is there twice")
        table[String(object)] = roles
      }
    }
    return table
  }()

  private static let text = """
    outbox.anchor outbox.attempt outbox.attempt_unpacked outbox.backlog outbox.delivery_status outbox.direct_in_flight outbox.endpoint_key outbox.endpoint_status
    outbox.in_flight outbox.migration outbox.past_subscription outbox.proof outbox.sealing outbox.stuck outbox.transform
      dispatcher: select
      operator: select

    outbox.attempt_packed
      dispatcher: select insert
      operator: select

    outbox.attempt_single
      dispatcher: select insert
      operator: select insert

    outbox.attempt_packed_<day> outbox.attempt_packed_default outbox.attempt_single_<day>
    outbox.attempt_single_default outbox.dead_letter_id_seq outbox.dispatcher_id_seq
    outbox.endpoint_id_seq outbox.endpoint_secret_id_seq outbox.event_<day> outbox.event_default
    outbox.position_id_seq outbox.proof_id_seq

    outbox.batch
      dispatcher: select insert delete
      operator: select delete

    outbox.dead_letter
      dispatcher: select insert
      operator: select update delete

    outbox.dedup outbox.tenant_operator
      operator: select

    outbox.delivery outbox.witness
      dispatcher: select insert update delete
      operator: select insert update delete

    outbox.delivery_seq outbox.endpoint_version
      dispatcher: nextval
      operator: nextval

    outbox.dispatcher
      dispatcher: select insert update delete
      operator: select update delete

    outbox.endpoint
      dispatcher: select update(version,state,disabled_at,disabled_because,updated_at)
      operator: select insert update delete

    outbox.endpoint_credential
      dispatcher: select update(value)
      operator: select(endpoint_id,kind,created_at,updated_at) insert(endpoint_id,kind,value) update(value,updated_at) delete

    outbox.endpoint_health
      dispatcher: select insert update
      operator: select update

    outbox.endpoint_secret
      dispatcher: select update(secret,public_key)
      operator: select(endpoint_id,id,kind,public_key,created_at,expires_at) insert(endpoint_id,secret,public_key) update(expires_at)

    outbox.event
      dispatcher: select insert(type,tenant,key,payload)
      operator: select insert
      publisher: insert(type,tenant,key,payload,metadata,not_before)

    outbox.filter_failure
      dispatcher: select insert update
      operator: select delete

    outbox.position
      dispatcher: select insert
      operator: select

    outbox.rate_<endpoint>
      dispatcher: select nextval setval
      operator: select

    outbox.setting
      dispatcher: select
      operator: select update

    outbox.skipped
      dispatcher: select insert
      operator: select

    outbox.subscription
      dispatcher: select update(since)
      operator: select update(since)

    outbox_tenant.attempt outbox_tenant.backlog outbox_tenant.dead_letter outbox_tenant.delivery
    outbox_tenant.delivery_status outbox_tenant.endpoint outbox_tenant.endpoint_key outbox_tenant.endpoint_status
    outbox_tenant.event outbox_tenant.stuck outbox_tenant.tenant
      tenant: select

    outbox.add_endpoint() outbox.add_partition() outbox.anchor_problem() outbox.announce()
    outbox.announce_dead_letters() outbox.attempt_day_needed() outbox.begin_migration() outbox.bucket()
    outbox.bucket_after() outbox.bucket_tokens() outbox.bucket_wait_ms() outbox.certain_routes() outbox.claim()
    outbox.compares_paths() outbox.conservation() outbox.delivered() outbox.conservation_findings() outbox.cut() outbox.cut_since()
    outbox.disable() outbox.disable_for_filter() outbox.discard() outbox.do_not_linger() outbox.drop_partition()
    outbox.event_day_needed() outbox.event_types_problem() outbox.explain() outbox.filter_document()
    outbox.filter_problem() outbox.filter_skeleton() outbox.findings() outbox.first_set_aside()
    outbox.forgive_waiting() outbox.give_back() outbox.has_unseen() outbox.headers_problem() outbox.heartbeat()
    outbox.hold_lease() outbox.is_wanted() outbox.judge() outbox.lock_doomed() outbox.lock_number()
    outbox.looked_at_until() outbox.maintain() outbox.matches() outbox.may_be_packed() outbox.new_secret() outbox.note_filter_faults()
    outbox.note_health() outbox.now_us() outbox.order_horizon() outbox.owed() outbox.pair_states() outbox.park()
    outbox.partitions() outbox.patterns() outbox.pause() outbox.prove() outbox.prove_again() outbox.proved()
    outbox.reanchor() outbox.reconcile() outbox.record() outbox.recover() outbox.redrive() outbox.redrive_all()
    outbox.redrive_where() outbox.register() outbox.release() outbox.reorder() outbox.repair()
    outbox.require_period() outbox.require_read_committed() outbox.require_usable_secret() outbox.resume()
    outbox.resync() outbox.rotate_secret() outbox.sealed_by() outbox.set_endpoint_state() outbox.setting()
    outbox.settle() outbox.spend() outbox.stamp_subscriptions() outbox.too_large_to_compare()
    outbox.transform_name() outbox.transform_problem() outbox.transformed() outbox.url_origin()
    outbox.url_problem() outbox.uuid_floor() outbox.uuid_second() outbox.uuid_time() outbox.waiting() outbox.wake() outbox.watch()
      dispatcher: execute
      operator: execute

    outbox.allow_tenant() outbox.allow_transform() outbox.change_attempt() outbox.check_endpoint() outbox.check_secret()
    outbox.check_transform() outbox.forbid_tenant() outbox.forbid_transform() outbox.forget_endpoint()
    outbox.keep_credentials_from_strangers() outbox.subscribe_endpoint() outbox.tell_of_expiry()
    outbox.next_look() outbox.prove_row() outbox_tenant.is_own() outbox_tenant.is_own_dead_letter() outbox_tenant.require_dead_letter()
    outbox_tenant.require_endpoint()

    outbox.clear_credential() outbox.credential_problem() outbox.credential_text_problem()
    outbox.delete_endpoint() outbox.pem_problem() outbox.ping() outbox.put_credential() outbox.replay()
    outbox.resend() outbox.retry_schedule() outbox.send_again() outbox.set_basic_auth() outbox.set_bearer_token()
    outbox.set_client_certificate() outbox.set_oauth2() outbox.set_plain_credential()
    outbox.set_sealed_credential()
      operator: execute

    outbox.may_speak_for_martlet() outbox.publish() outbox.uuid_v7()
      dispatcher: execute
      operator: execute
      publisher: execute

    outbox.unsealed_credentials() outbox.unsealed_secrets()
      dispatcher: execute

    outbox_tenant.disable() outbox_tenant.discard() outbox_tenant.explain() outbox_tenant.pause()
    outbox_tenant.ping() outbox_tenant.redrive() outbox_tenant.redrive_where() outbox_tenant.replay()
    outbox_tenant.resend() outbox_tenant.resume()
      tenant: execute
    """
}
