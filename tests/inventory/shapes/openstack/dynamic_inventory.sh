#!/bin/sh
# A program like the one that makes the inventory of a cloud out of its own notes.
[ "$1" = --list ] || { echo '{}'; exit 0; }
cat <<'EOF'
{
  "_meta": {
    "hostvars": {
      "aio1": {
        "ansible_host": "172.29.236.100", "management_address": "172.29.236.100",
        "container_types": "aio1-host_containers", "is_metal": true, "physical_host": "aio1",
        "properties": {"is_metal": true, "service_name": "nova"}, "component": "nova_compute"
      },
      "aio1-galera-container-0f3c1d2e": {
        "ansible_host": "172.29.239.7", "component": "galera", "physical_host": "aio1",
        "container_name": "aio1-galera-container-0f3c1d2e",
        "container_networks": {
          "management_address": {"address": "172.29.239.7", "bridge": "br-mgmt", "netmask": null,
                                 "type": "veth", "interface": "eth1"}
        },
        "properties": {"log_directory": "mysql_logs", "service_name": "galera"}
      },
      "aio1-rabbit-mq-container-7a9b4c55": {
        "ansible_host": "172.29.238.31", "component": "rabbitmq", "physical_host": "aio1",
        "container_networks": {}, "properties": {"service_name": "rabbitmq"}
      }
    }
  },
  "all": {"vars": {"container_cidr": "172.29.236.0/22", "tunnel_cidr": "172.29.240.0/22",
                   "properties": {}, "galera_monitoring_allowed_source": "0.0.0.0/0"}},
  "aio1-host_containers": {
    "hosts": ["aio1-galera-container-0f3c1d2e", "aio1-rabbit-mq-container-7a9b4c55"]
  },
  "all_containers": {"children": ["database_containers", "mq_containers", "aio1-host_containers"]},
  "compute-infra_all": {"hosts": ["aio1"]},
  "compute-infra_containers": {"children": ["aio1-host_containers"], "hosts": []},
  "compute-infra_hosts": {"hosts": ["aio1"]},
  "database_all": {"children": ["galera_all"], "hosts": []},
  "database_containers": {"hosts": ["aio1-galera-container-0f3c1d2e"]},
  "galera": {"children": [], "hosts": ["aio1-galera-container-0f3c1d2e"]},
  "galera_all": {"children": ["galera"], "hosts": []},
  "mq_containers": {"hosts": ["aio1-rabbit-mq-container-7a9b4c55"]},
  "rabbitmq": {"hosts": ["aio1-rabbit-mq-container-7a9b4c55"]},
  "rabbitmq_all": {"children": ["rabbitmq"], "hosts": []},
  "nova_compute": {"children": [], "hosts": ["aio1"]},
  "hosts": {"children": ["compute-infra_hosts", "physical_host"]},
  "physical_host": {"hosts": ["aio1"]},
  "lxc_hosts": {"hosts": ["aio1"]}
}
EOF
