//! What Mangrove promises, shown by real processes over real QUIC on real disks. Each file tells one promise's stories.

#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

mod claims;
mod load;
mod mount;
mod relay;
mod support;

mod a_chain_carries_what_its_ends_write;
mod a_hostile_module_costs_its_topic;
mod a_join_goes_on_where_it_was_killed;
mod a_larger_mesh_keeps_few_links;
mod a_link_in_bad_weather_loses_nothing;
mod a_list_stays_at_its_node;
mod a_long_schema_comes_by_itself;
mod a_mesh_outlives_its_founder;
mod a_metered_link_says_its_lag;
mod a_node_ends_at_once;
mod a_node_holds_only_its_sections;
mod a_paused_node_catches_up;
mod a_publisher_stops_when_its_branch_is_lost;
mod a_quorum_never_has_two_writers;
mod a_restart_is_quick;
mod a_session_is_taken_up_again;
mod a_session_outlives_a_split;
mod a_session_outlives_its_node;
mod a_slow_reader_gets_the_newest;
mod a_source_of_local_topics_is_its_nodes_own;
mod a_source_writes_alone_and_its_standby_takes_over;
mod a_split_heals_to_one_source;
mod acknowledged_writes_survive;
mod concurrent_writes_lose_nothing;
mod control_clients_act_for_others;
mod damage_is_learned_again;
mod disks_that_recover_are_used_again;
mod events_are_in_one_order_everywhere;
mod every_type_is_the_same_on_every_node;
mod everybody_may_do_what_the_rules_say;
mod full_and_read_only_disks_refuse;
mod long_values_travel_as_what_has_changed;
mod messages_of_protobuf_are_read_everywhere;
mod messages_reach_who_listens;
mod nodes_come_and_go_under_load;
mod plain_writes_after_a_source_win_everywhere;
mod sections_change_live;
mod strangers_are_refused;
mod topics_merge_after_a_split;
mod what_cannot_start_says_why;
mod what_is_so_decides_what_is_written;
